"""Many may read at once, or one may change what they read."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from service.recommender.changes.readers_writer import ReadersWriter

SOON = 20.0  # seconds within which what may happen has happened


def in_thread(run: Callable[[], None]) -> threading.Thread:
    """Started."""
    thread = threading.Thread(target=run)
    thread.start()
    return thread


def test_readers_read_side_by_side() -> None:
    """All of them are in at once."""
    lock, together = ReadersWriter(), threading.Barrier(8, timeout=SOON)

    def read() -> None:
        with lock.reading():
            together.wait()

    with ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(read) for _ in range(8)]:
            done.result()


def test_who_reads_never_sees_half_a_change() -> None:
    """Two values that are always changed together are always equal, and no change is lost."""
    lock, ended = ReadersWriter(), threading.Event()
    values, wrong, reads = [0, 0], [], [0]

    def write() -> None:
        for _ in range(300):
            with lock.writing():
                values[0] += 1
                time.sleep(0)
                values[1] += 1

    def read() -> None:
        while not ended.is_set():
            with lock.reading():
                first = values[0]
                time.sleep(0)
                if first != values[1]:
                    wrong.append(list(values))
            reads[0] += 1

    readers, writers = [in_thread(read) for _ in range(4)], [in_thread(write) for _ in range(2)]
    for thread in writers:
        thread.join(3 * SOON)
    ended.set()
    for thread in readers:
        thread.join(SOON)
    assert not wrong
    assert values == [600, 600]
    assert reads[0] > 0


def test_a_change_waits_for_who_reads_and_goes_before_who_comes_later() -> None:
    """So readers that never pause do not keep changes out."""
    lock, order = ReadersWriter(), []
    inside, leave, later = threading.Event(), threading.Event(), threading.Event()

    def first() -> None:
        with lock.reading():
            inside.set()
            leave.wait(SOON)
            order.append("first reader")

    def write() -> None:
        with lock.writing():
            order.append("writer")

    def second() -> None:
        later.set()
        with lock.reading():
            order.append("second reader")

    threads = [in_thread(first)]
    assert inside.wait(SOON)
    threads.append(in_thread(write))
    while not lock._waiting:
        time.sleep(0.001)
    threads.append(in_thread(second))
    assert later.wait(SOON)
    time.sleep(0.05)
    assert order == []
    leave.set()
    for thread in threads:
        thread.join(SOON)
    assert order == ["first reader", "writer", "second reader"]


@pytest.mark.parametrize("how", ["reading", "writing"])
def test_an_error_within_leaves_nobody_locked_out(how: str) -> None:
    """The lock is free again."""
    lock = ReadersWriter()
    with pytest.raises(ValueError, match="within"), getattr(lock, how)():
        raise ValueError("within")
    with lock.writing():
        pass
    with lock.reading():
        pass
