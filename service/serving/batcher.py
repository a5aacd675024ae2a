"""Requests that wait -> batches: the one queue in front of the encoder, for every protocol.

A lane is a thread that takes what is waiting the moment it is free, so a request alone never waits for others to come,
and under load the batches grow by themselves. The queue has a bound and its requests a deadline: what cannot be
answered in time is refused at once, in place of being answered too late.
"""

import asyncio
import math
import os
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from service import context
from service.errors import CallerGone, DeadlineMissed, Overloaded

BEHIND = 5  # niceness of the lanes

Asked = TypeVar("Asked")
Answer = TypeVar("Answer")


@dataclass(slots=True, eq=False)
class _Waiting:
    """One request: what is to be done with it, and who waits for it on which event loop."""

    work: Callable[[Sequence[Any]], Sequence[Any]]
    asked: Any
    answer: "asyncio.Future[Any]"
    since: float
    waited: Callable[[float], None]
    call: context.RequestContext | None


class MicroBatcher:
    """Runs work on batches of requests, in threads of its own. Safe to call from several event loops."""

    def __init__(
        self,
        *,
        lanes: int,
        largest_batch: int,
        bound: int,
        observe: Callable[[str, float], None] = lambda what, value: None,
    ) -> None:
        """lanes: batches under way at once; bound: requests that may wait beside them;
        observe: called with `batch` and its size, and with `wait` and the seconds that its first request waited."""
        self._largest_batch, self._bound = largest_batch, bound
        self._observe = observe
        self._waiting: deque[_Waiting] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._idle = 0  # lanes that wait for work
        self._busy = 0  # requests in lanes
        self._threads = [threading.Thread(target=self._run, name=f"lane-{n}", daemon=True) for n in range(lanes)]
        for thread in self._threads:
            thread.start()

    @property
    def waiting(self) -> int:
        """How many requests wait for a lane."""
        return len(self._waiting)

    @property
    def under_way(self) -> int:
        """How many requests wait or are being answered."""
        return len(self._waiting) + self._busy

    async def submit(
        self,
        work: Callable[[Sequence[Asked]], Sequence[Answer]],
        asked: Asked,
        *,
        deadline: float,
        gone: Callable[[], Awaitable[Any]] | None = None,
        waited: Callable[[float], None] = lambda seconds: None,
    ) -> Answer:
        """Have `work` done on a batch that holds `asked`; returns its answer.

        work: answers in the order of its batch; equal for requests that may share one. It runs in a lane, and
        again on each request alone where the batch raises, so that an error reaches only who caused it.
        gone: ends when the caller has gone. A request that is cancelled, or whose caller goes, before a lane took it
        is dropped. waited: told, in the lane, for how many seconds the request waited.
        Raises Overloaded where too many wait, DeadlineMissed where no answer came within `deadline` seconds,
        CallerGone, and what `work` raises."""
        loop = asyncio.get_running_loop()
        request = _Waiting(work, asked, loop.create_future(), time.monotonic(), waited, context.current())
        with self._changed:
            if len(self._waiting) >= self._bound:
                raise Overloaded(f"{len(self._waiting)} requests are waiting, and no more may; send it again later")
            self._waiting.append(request)
            behind = len(self._waiting) > 1
            self._changed.notify()
        # to watch the caller costs something, and is of use only to one who has to wait
        watch = asyncio.ensure_future(gone()) if gone is not None and behind else None
        if watch is not None:
            watch.add_done_callback(lambda _: request.answer.cancel())
        late = DeadlineMissed(f"no answer within {deadline:g} s: the service is busy; send it again later")
        timer = loop.call_later(deadline, _settle, request.answer, None, late)
        try:
            answer: Answer = await request.answer
            return answer
        except asyncio.CancelledError:
            if watch is not None and watch.done():
                raise CallerGone("the caller has gone") from None
            raise
        finally:
            timer.cancel()
            if watch is not None:
                watch.cancel()

    def close(self) -> None:
        """Let the lanes end, when they have done what is under way. What still waits is refused."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()
        for request in self._waiting:
            _tell([(request, None, Overloaded("the service is ending; send it again"))])

    def _run(self) -> None:
        # An event loop that is woken holds the interpreter's lock: it should not have to wait for a core behind work
        # that does not need the lock.
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), BEHIND)
        while batch := self._take():
            now = time.monotonic()
            self._observe("batch", len(batch))
            self._observe("wait", now - batch[0].since)
            for request in batch:
                request.waited(now - request.since)
            with context.stages() as stages:
                told = _answers(batch)
            with self._changed:
                self._busy -= len(batch)
            for request in batch:
                if request.call is not None:
                    began = request.call.began  # it has waited since
                    request.call.stages += [("wait", began, began + int((now - request.since) * 1e9)), *stages]
            _tell(told)

    def _take(self) -> list[_Waiting]:
        """The next batch, at most this lane's share of what waits, among the lanes that are free; waits for one.
        Empty at the end."""
        with self._changed:
            while True:
                # who has gone, or was told that it is too late, needs no answer
                while self._waiting and self._waiting[0].answer.done():
                    self._waiting.popleft()
                if self._closed:
                    return []
                if self._waiting:
                    batch = self._share()
                    self._busy += len(batch)
                    return batch
                self._idle += 1
                self._changed.wait()
                self._idle -= 1

    def _share(self) -> list[_Waiting]:
        most = min(self._largest_batch, math.ceil(len(self._waiting) / (1 + self._idle)))
        batch = [self._waiting.popleft()]
        while self._waiting and len(batch) < most and self._waiting[0].work == batch[0].work:
            request = self._waiting.popleft()
            if not request.answer.done():
                batch.append(request)
        return batch


_Told = tuple[_Waiting, Any, Exception | None]


def _answers(batch: list[_Waiting]) -> list[_Told]:
    """Each request with its answer or its error."""
    try:
        answers = batch[0].work([request.asked for request in batch])
        return [(request, answer, None) for request, answer in zip(batch, answers, strict=True)]
    except Exception as error:
        if len(batch) == 1:
            return [(batch[0], None, error)]
        return [told for request in batch for told in _answers([request])]


def _tell(told: list[_Told]) -> None:
    """Hand the answers over, in one turn of each event loop."""
    loops: dict[asyncio.AbstractEventLoop, list[_Told]] = {}
    for each in told:
        loops.setdefault(each[0].answer.get_loop(), []).append(each)
    for loop, those in loops.items():
        if not loop.is_closed():
            loop.call_soon_threadsafe(_settle_all, those)


def _settle_all(told: list[_Told]) -> None:
    for request, answer, error in told:
        _settle(request.answer, answer, error)


def _settle(future: "asyncio.Future[Any]", answer: Any, error: Exception | None) -> None:
    if future.done():  # gone, or told already that it was too late
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(answer)
