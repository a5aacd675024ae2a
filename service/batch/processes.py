"""The processes of a run: each answers parts with one thread, and none outlives the run."""

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context

from service.batch.answers import Part, Work, answer, begin
from service.errors import VitrineError

ONE_THREAD = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS")  # as service/app.py has it, and with the same last bits


def answer_parts(work: Work, parts: Sequence[Part], workers: int, answered: Callable[[int], None]) -> None:
    """Answer parts in processes of their own. answered: called with the number of users of each part that is done.

    Raises VitrineError where a process is ended from outside, and what any of them raises."""
    with _processes(work, workers) as pool:
        try:
            with _interrupted_later():
                futures = [pool.submit(answer, part) for part in parts]
            for future in as_completed(futures):
                answered(future.result())
        except BrokenProcessPool as error:
            raise VitrineError(
                "a process of the run was ended from outside, as happens where memory is short: ask for fewer "
                "--workers; what is answered is kept"
            ) from error


@contextmanager
def _processes(work: Work, workers: int) -> Iterator[ProcessPoolExecutor]:
    """Processes that end with the block, and with this process, however it ends."""
    os.environ.update(dict.fromkeys(ONE_THREAD, "1"))
    context = get_context("spawn")
    theirs, ours = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(workers, context, initializer=begin, initargs=(work, theirs))
    try:
        yield pool
    finally:
        ours.close()  # they see it, and end with whatever they have in hand
        pool.shutdown(cancel_futures=True)
        theirs.close()


@contextmanager
def _interrupted_later() -> Iterator[None]:
    """Processes that are started in the block never see Ctrl-C, which a terminal sends to all of them; this one sees it
    when the block ends."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
