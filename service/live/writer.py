"""Writes to the store, many in one transaction: whoever comes while one is under way goes with the next."""

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from service.errors import BadQuery, Overloaded, StoreAway
from service.live.store import Store
from service.live.unit_of_work import Operation

TOGETHER = 500  # operations of one transaction


@dataclass(slots=True, eq=False)
class _Waiting:
    operation: Operation
    reply: "asyncio.Future[Any]"


class GroupCommit:
    """Writes in a thread of its own."""

    def __init__(self, store: Store, *, bound: int, is_away: Callable[[], bool], wrote: Callable[[], None]) -> None:
        """bound: operations that may wait; is_away: whether the store was away when it was last looked at, so that
        nobody waits for what cannot be; wrote: called after each commit."""
        self._store, self._bound, self._is_away, self._wrote = store, bound, is_away, wrote
        self._waiting: deque[_Waiting] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="store-writer", daemon=True)
        self._thread.start()

    async def submit(self, operation: Operation) -> Any:
        """Have it done; returns its reply once it outlives this process. Raises StoreAway, Overloaded, and what the
        operation itself raises."""
        [reply] = self._enqueue([operation])
        return await reply

    async def submit_all(self, operations: Sequence[Operation]) -> list[Any]:
        """The same with several, in their order -> their replies, in place of one the BadQuery that it alone has."""
        replies = await asyncio.gather(*self._enqueue(operations), return_exceptions=True)
        for reply in replies:
            if isinstance(reply, BaseException) and not isinstance(reply, BadQuery):
                raise reply
        return list(replies)

    def _enqueue(self, operations: Sequence[Operation]) -> "list[asyncio.Future[Any]]":
        if self._is_away():
            raise StoreAway("the store is away, so nothing can be kept: send it again later")
        loop = asyncio.get_running_loop()
        new = [_Waiting(operation, loop.create_future()) for operation in operations]
        with self._changed:
            if self._closed:
                raise StoreAway("the service is ending: send it again")
            if len(self._waiting) >= self._bound:
                raise Overloaded(f"{len(self._waiting)} writes are waiting, and no more may; send it again later")
            self._waiting.extend(new)
            self._changed.notify()
        return [each.reply for each in new]

    def close(self) -> None:
        """End, once all that waits is written."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while batch := self._take():
            try:
                replies = self._store.write([each.operation for each in batch])
            except Exception as error:
                replies = [error] * len(batch)
            else:
                self._wrote()
            loop = batch[0].reply.get_loop()
            if not loop.is_closed():
                loop.call_soon_threadsafe(_tell, batch, replies)

    def _take(self) -> list[_Waiting]:
        with self._changed:
            while not self._waiting and not self._closed:
                self._changed.wait()
            return [self._waiting.popleft() for _ in range(min(TOGETHER, len(self._waiting)))]


def _tell(batch: list[_Waiting], replies: list[Any]) -> None:
    for each, reply in zip(batch, replies, strict=True):
        if each.reply.done():  # who asked has gone
            continue
        if isinstance(reply, Exception):
            each.reply.set_exception(reply)
        else:
            each.reply.set_result(reply)
