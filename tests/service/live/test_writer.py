"""Many writes in one transaction."""

import asyncio
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from service.errors import NotFound, Overloaded, StoreAway
from service.live.operations import AddEvents, NewEvent, PatchItem, PutItem
from service.live.store import Store
from service.live.writer import TOGETHER, GroupCommit


class Counted:
    """How often the store was asked what, and a gate that its writes wait at."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()

    def observe(self, what: str, seconds: float) -> None:
        self.calls[what] += 1


@pytest.fixture
def counted() -> Counted:
    return Counted()


@pytest.fixture
def open_store(tmp_path: Path, counted: Counted) -> Iterator[Store]:
    """In SQLite."""
    opened = Store.open(str(tmp_path / "live.db"), observe=counted.observe)
    yield opened
    opened.close()


def writer_of(store: Store, **fields: Any) -> GroupCommit:
    """One that finds its store there."""
    return GroupCommit(store, **{"bound": 10_000, "is_away": lambda: False, "wrote": lambda: None, **fields})


def event(number: int) -> AddEvents:
    """One view."""
    return AddEvents([NewEvent("user", str(number), "view")])


def test_who_comes_while_a_transaction_is_under_way_goes_with_the_next(open_store: Store, counted: Counted) -> None:
    """A thousand writes are few transactions; each gets its own reply, after its own commit."""
    wrote = []
    writer = writer_of(open_store, wrote=lambda: wrote.append(1))

    async def write() -> list[Any]:
        return await asyncio.gather(*[writer.submit(event(number)) for number in range(1000)])

    replies = asyncio.run(write())
    writer.close()
    assert sorted(reply["sequence"] for reply in replies) == list(range(1, 1001))
    assert {e.item_id: e.sequence for e in open_store.changes(0).events} == {
        str(number): reply["sequence"] for number, reply in enumerate(replies)
    }
    assert 1000 / TOGETHER <= counted.calls["write"] == len(wrote) <= 10


def test_an_operation_that_is_wrong_is_wrong_alone(open_store: Store) -> None:
    """The others of its transaction are done."""
    writer = writer_of(open_store)

    async def write() -> list[Any]:
        sent = [PutItem("a", {}), PatchItem("none", {"x": 1}, known=False), PutItem("b", {})]
        return await writer.submit_all(sent)

    replies = asyncio.run(write())
    writer.close()
    assert isinstance(replies[1], NotFound)
    assert [replies[0]["item_id"], replies[2]["item_id"]] == ["a", "b"]


def test_no_more_may_wait_than_is_allowed(open_store: Store) -> None:
    """Who comes then is told to come again."""
    held = threading.Lock()

    class Slow(Store):
        def write(self, operations: Any) -> list[Any]:
            with held:
                return super().write(operations)

    open_store.__class__ = Slow
    writer = writer_of(open_store, bound=3)

    async def write() -> list[Any]:
        with held:
            waiting = [asyncio.ensure_future(writer.submit(event(0)))]
            await asyncio.sleep(0.2)  # it is being written
            waiting += [asyncio.ensure_future(writer.submit(event(number))) for number in range(5)]
            await asyncio.sleep(0)
        return await asyncio.gather(*waiting, return_exceptions=True)

    replies = asyncio.run(write())
    writer.close()
    assert [isinstance(reply, Overloaded) for reply in replies] == [False] * 4 + [True] * 2


def test_while_the_store_is_away_nobody_waits(open_store: Store) -> None:
    """It is said at once."""
    writer = writer_of(open_store, is_away=lambda: True)
    with pytest.raises(StoreAway, match="send it again later"):
        asyncio.run(writer.submit(event(1)))
    writer.close()


def test_what_waits_at_the_end_is_written(open_store: Store) -> None:
    """And afterwards nothing is taken any more."""
    writer = writer_of(open_store)

    async def write() -> list[Any]:
        waiting = [asyncio.ensure_future(writer.submit(event(number))) for number in range(50)]
        await asyncio.sleep(0)
        await asyncio.to_thread(writer.close)
        with pytest.raises(StoreAway, match="is ending"):
            await writer.submit(event(99))
        return await asyncio.gather(*waiting)

    assert len(asyncio.run(write())) == 50
    assert len(open_store.changes(0).events) == 50


def test_who_does_not_wait_any_more_harms_nobody(open_store: Store) -> None:
    """What was sent is kept all the same."""
    writer = writer_of(open_store)

    async def write() -> Any:
        gone = asyncio.ensure_future(writer.submit(event(1)))
        await asyncio.sleep(0)
        gone.cancel()
        return await writer.submit(event(2))

    assert asyncio.run(write())["sequence"] == 2
    writer.close()
    assert [e.item_id for e in open_store.changes(0).events] == ["1", "2"]
