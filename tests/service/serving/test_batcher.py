"""One queue for all: no waiting when alone, a bound, deadlines, and errors that stay with who caused them."""

import asyncio
import threading
import time
from collections.abc import Iterator, Sequence

import pytest

from service.errors import CallerGone, DeadlineMissed, Overloaded
from service.serving.batcher import MicroBatcher


class Slow:
    """Work that doubles numbers, once it is let go; refuses thirteen."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.batches: list[list[int]] = []

    def __call__(self, numbers: Sequence[int]) -> list[int]:
        self.batches.append(list(numbers))
        assert self.go.wait(10)
        if 13 in numbers:
            raise ValueError("thirteen")
        return [2 * number for number in numbers]


@pytest.fixture
def slow() -> Slow:
    """Work that is held until `go` is set."""
    return Slow()


@pytest.fixture
def batcher() -> Iterator[MicroBatcher]:
    """One lane, batches of four, eight may wait."""
    made = MicroBatcher(lanes=1, largest_batch=4, bound=8)
    yield made
    made.close()


async def held(batcher: MicroBatcher, slow: Slow) -> "asyncio.Task[int]":
    """A request that the lane has taken, so that the next ones wait."""
    first = asyncio.create_task(batcher.submit(slow, 0, deadline=10))
    while not slow.batches:
        await asyncio.sleep(0.001)
    return first


class Timeless(threading.Condition):
    """One on which no time passes: a wait ends when somebody notifies it, and never by itself."""

    def wait(self, timeout: float | None = None) -> bool:
        """Until then."""
        return super().wait()


def test_one_request_alone_is_answered_at_once(slow: Slow, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for a batch to fill: it is answered also where the time that somebody waits for never passes."""
    over = threading.Event()
    with monkeypatch.context() as made_in:
        made_in.setattr(threading, "Condition", Timeless)
        batcher = MicroBatcher(lanes=1, largest_batch=4, bound=8)
    monkeypatch.setattr(time, "sleep", lambda seconds: over.wait(60))
    slow.go.set()
    try:
        assert asyncio.run(batcher.submit(slow, 21, deadline=10)) == 42
    finally:
        over.set()
        batcher.close()
    assert slow.batches == [[21]]


def test_what_waits_is_answered_together(batcher: MicroBatcher, slow: Slow) -> None:
    """Requests that came while the lane was busy share batches, in their order, each with its own answer."""

    async def ask() -> list[int]:
        first = await held(batcher, slow)
        others = [asyncio.create_task(batcher.submit(slow, number, deadline=10)) for number in range(1, 7)]
        await asyncio.sleep(0.01)
        slow.go.set()
        return await asyncio.gather(first, *others)

    assert asyncio.run(ask()) == [0, 2, 4, 6, 8, 10, 12]
    assert slow.batches == [[0], [1, 2, 3, 4], [5, 6]]


def test_an_error_reaches_only_who_caused_it(batcher: MicroBatcher, slow: Slow) -> None:
    """The others of its batch are answered."""

    async def ask() -> list[object]:
        first = await held(batcher, slow)
        others = [asyncio.create_task(batcher.submit(slow, number, deadline=10)) for number in (1, 13, 3)]
        await asyncio.sleep(0.01)
        slow.go.set()
        return await asyncio.gather(first, *others, return_exceptions=True)

    zero, two, error, six = asyncio.run(ask())
    assert (zero, two, six) == (0, 2, 6)
    assert isinstance(error, ValueError)
    assert slow.batches == [[0], [1, 13, 3], [1], [13], [3]]  # they were in one batch, and then each alone


def test_no_more_wait_than_may(batcher: MicroBatcher, slow: Slow) -> None:
    """The one beyond the bound is refused at once, before the event loop turns; those that wait are answered."""

    async def ask() -> list[int]:
        first = await held(batcher, slow)
        others = [asyncio.create_task(batcher.submit(slow, number, deadline=10)) for number in range(8)]
        await asyncio.sleep(0.01)
        beyond = batcher.submit(slow, 9, deadline=10)
        with pytest.raises(Overloaded, match="8 requests are waiting"):
            beyond.send(None)
        slow.go.set()
        return await asyncio.gather(first, *others)

    assert asyncio.run(ask()) == [0, 0, 2, 4, 6, 8, 10, 12, 14]


def test_a_deadline_is_kept_while_the_lane_is_busy(batcher: MicroBatcher, slow: Slow) -> None:
    """Who waits too long is told so while the lane still works, and no work is done for them afterwards; who may wait
    longer does."""

    async def ask() -> None:
        first = await held(batcher, slow)
        late = asyncio.create_task(batcher.submit(slow, 5, deadline=0.05))
        patient = asyncio.create_task(batcher.submit(slow, 7, deadline=10))
        with pytest.raises(DeadlineMissed, match=r"0\.05 s"):
            await late
        assert not first.done()
        assert not patient.done()
        slow.go.set()
        assert await asyncio.gather(first, patient) == [0, 14]

    asyncio.run(ask())
    assert slow.batches == [[0], [7]]


def test_a_request_that_is_cancelled_is_dropped(batcher: MicroBatcher, slow: Slow) -> None:
    """So is one whose caller has gone."""

    async def gone() -> None:
        await asyncio.sleep(0.01)

    async def ask() -> None:
        first = await held(batcher, slow)
        cancelled = asyncio.create_task(batcher.submit(slow, 1, deadline=10))
        left = asyncio.create_task(batcher.submit(slow, 2, deadline=10, gone=gone))
        await asyncio.sleep(0.05)
        cancelled.cancel()
        with pytest.raises(CallerGone):
            await left
        last = asyncio.create_task(batcher.submit(slow, 3, deadline=10))
        slow.go.set()
        assert await asyncio.gather(first, last) == [0, 6]

    asyncio.run(ask())
    assert slow.batches == [[0], [3]]


def test_who_still_waits_at_the_end_is_told(slow: Slow) -> None:
    """What is under way is finished, what waits is refused, and nothing hangs."""
    batcher = MicroBatcher(lanes=1, largest_batch=1, bound=8)

    async def ask() -> list[object]:
        first = await held(batcher, slow)
        second = asyncio.create_task(batcher.submit(slow, 1, deadline=10))
        await asyncio.sleep(0.01)
        closing = asyncio.create_task(asyncio.to_thread(batcher.close))
        await asyncio.sleep(0.05)
        slow.go.set()
        await closing
        return await asyncio.gather(first, second, return_exceptions=True)

    zero, refused = asyncio.run(ask())
    assert zero == 0
    assert isinstance(refused, Overloaded)
