"""Who follows the store keeps every open release up to date, whatever becomes of one of them."""

import asyncio
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from service.errors import EncoderAway
from service.live.follower import Follower
from service.live.operations import AddEvents, NewEvent
from service.live.store import Store
from tests.processes import wait_until

EVENT = AddEvents([NewEvent("user", "1", "view")])


class Followed:
    """What the follower sees of an overlay."""

    def __init__(self, store: Store, *, gate: threading.Event | None = None) -> None:
        """gate: what it waits for before it is up to date."""
        self.position, self.broken = 0, False
        self._store, self._gate = store, gate

    def catch_up(self) -> None:
        """As an overlay does."""
        if self.broken:
            raise EncoderAway("the encoder is away")
        if self._gate is not None:
            self._gate.wait(60)
        self.position = self._store.changes(self.position).upto

    def settle(self) -> None:
        """Nothing waits for later."""


@pytest.fixture
def open_store(tmp_path: Path) -> Iterator[Store]:
    """In SQLite."""
    opened = Store.open(str(tmp_path / "live.db"))
    yield opened
    opened.close()


@pytest.fixture
def follower(open_store: Store) -> Iterator[Any]:
    """Of the store."""
    started = Follower(open_store)
    yield started
    started.close()


def test_what_another_process_writes_is_applied_within_a_second(follower: Any, open_store: Store) -> None:
    """Nobody has to say so."""
    followed = Followed(open_store)
    follower.attach(followed)
    open_store.write([EVENT])
    assert wait_until(lambda: followed.position == 1, seconds=20) < 1


def test_a_release_that_takes_long_to_open_keeps_no_other_from_changes(follower: Any, open_store: Store) -> None:
    """Such as one whose encoder has to look at every picture first."""
    gate = threading.Event()
    quick, slow = Followed(open_store), Followed(open_store, gate=gate)
    follower.attach(quick)
    opening = threading.Thread(target=follower.attach, args=(slow,))
    opening.start()
    time.sleep(0.1)
    open_store.write([EVENT])
    wait_until(lambda: quick.position == 1, seconds=20)
    assert slow.position == 0
    gate.set()
    opening.join(20)
    assert slow.position == 1


def test_a_release_that_cannot_be_changed_keeps_no_other_from_changes(follower: Any, open_store: Store) -> None:
    """Nor does a reply wait for it; once it can be changed it is."""
    followed = [Followed(open_store) for _ in range(4)]
    for each in followed:
        follower.attach(each)
    followed[1].broken = followed[2].broken = True
    open_store.write([EVENT])
    wait_until(lambda: followed[0].position == followed[3].position == 1, seconds=20)
    assert asyncio.run(follower.applied(followed[0], 1, within=20))
    assert not asyncio.run(follower.applied(followed[1], 1, within=0.1))
    assert not follower.away
    followed[1].broken = followed[2].broken = False
    wait_until(lambda: all(each.position == 1 for each in followed), seconds=20)


def test_a_reply_waits_for_every_release_that_may_answer(follower: Any, open_store: Store) -> None:
    """A canary answers some users; they must not see what was withdrawn either."""
    gate = threading.Event()
    gate.set()
    production, canary = Followed(open_store), Followed(open_store, gate=gate)
    follower.attach(production)
    follower.attach(canary)
    gate.clear()
    open_store.write([EVENT])
    wait_until(lambda: production.position == 1 or canary.position == 1 or not gate.is_set(), seconds=20)
    assert not asyncio.run(follower.applied(production, 1, within=0.5))
    gate.set()
    assert asyncio.run(follower.applied(production, 1, within=20))
    assert canary.position == 1
