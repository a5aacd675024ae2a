"""What the store promises, in SQLite and in PostgreSQL alike."""

from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import event

from service.errors import BadQuery, NotFound
from service.live.operations import (
    AddEvents,
    EraseUser,
    KeepSeen,
    LinkSession,
    NewEvent,
    PatchItem,
    Picture,
    PutItem,
    WithdrawItem,
)
from service.live.store import Store
from service.live.unit_of_work import Attempt, Operation
from service.recommender.user_keys import erasure_mark, hash_session, hash_user

KEY = "secret"
ANNA, BELA = hash_user("anna@example.org", KEY), hash_user("bela@example.org", KEY)
SESSION = hash_session("s1", KEY)
VECTOR = np.array([0.6, 0.8], np.float32)


def write(store: Store, *operations: Operation) -> list[Any]:
    """What each replies."""
    return store.write(operations)


def view(who: str, item_id: str = "1", **fields: Any) -> AddEvents:
    """One view."""
    return AddEvents([NewEvent(who, item_id, "view", **fields)])


def picture(digest: str, content: bytes = b"jpeg") -> Picture:
    """A picture as one encoder sees it."""
    return Picture(digest, content, {("encoder", "fp32"): VECTOR.tobytes()}, b"marks")


def test_changes_are_all_that_came_after_a_number_in_their_order(store: Store) -> None:
    """Items with their present state, events, sessions that were joined, users that were erased."""
    write(store, PutItem("a", {"price": 1.0}), view(ANNA, "a"), PutItem("b", {}), view(SESSION, "b"))
    before = store.position()
    write(store, PatchItem("a", {"price": 2.0}, known=True), view(ANNA, "b"), LinkSession(SESSION, ANNA))
    write(store, WithdrawItem("b", known=True), EraseUser(BELA, erasure_mark(BELA)))
    every, later = store.changes(0), store.changes(before)
    assert [(item.item_id, item.withdrawn) for item in every.items] == [("a", False), ("b", True)]
    assert [item.sequence for item in every.items] == sorted(item.sequence for item in every.items)
    assert every.items[0].attributes == {"price": 2.0}
    assert [each.item_id for each in every.events] == ["a", "b", "b"]
    assert [each.user_key for each in every.events] == [ANNA] * 3
    assert [(each.item_id, each.sequence) for each in later.events] == [("b", before + 2)]
    assert later.links == [(SESSION, ANNA)]
    assert later.erased == [erasure_mark(BELA)]
    assert later.upto == every.upto == store.position()
    nothing = store.changes(store.position())
    assert not any((nothing.items, nothing.events, nothing.links, nothing.erased))


def test_an_item_that_is_changed_while_others_read_is_in_what_they_read(store: Store, store_url: str) -> None:
    """Whoever has read up to a number holds every change before it, also where a later one came in between."""
    write(store, PutItem("a", {"price": 1.0}))
    other, changed = Store.open(store_url), []

    def change_after_the_number_was_read(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        if "FROM log" in statement and not changed:
            changed.append(other.write([PatchItem("a", {"sale": True}, known=True)]))

    event.listen(store._engine, "after_cursor_execute", change_after_the_number_was_read)
    changes = store.changes(0)
    assert changes.upto == 1
    assert [item.attributes for item in changes.items] == [{"price": 1.0, "sale": True}]
    assert [item.sequence for item in store.changes(1).items] == [2]
    other.close()


def test_events_of_a_session_that_was_joined_are_its_users(store: Store) -> None:
    """Those before it was joined, and those after."""
    write(store, AddEvents([NewEvent(SESSION, "1", "view")], (SESSION,)), LinkSession(SESSION, ANNA))
    write(store, AddEvents([NewEvent(SESSION, "2", "cart")], (SESSION,)))
    assert [each["item_id"] for each in store.held(ANNA)["events"]] == ["1", "2"]
    assert store.held(ANNA)["sessions"] == 1
    assert store.held(SESSION)["events"] == []


def test_a_request_that_is_sent_again_changes_nothing_and_gets_the_same_reply(store: Store) -> None:
    """Also within one transaction; with another content it is refused; another key is another request."""
    attempt = Attempt("key", "digest")
    sent = AddEvents([NewEvent(ANNA, "1", "view")], attempt=attempt)
    first, second = write(store, sent, sent)
    [third] = write(store, sent)
    assert first == second == third
    assert len(store.changes(0).events) == 1
    [refused] = write(store, AddEvents([NewEvent(ANNA, "2", "view")], attempt=Attempt("key", "other")))
    assert isinstance(refused, BadQuery)
    assert refused.field == "Idempotency-Key"
    write(store, AddEvents([NewEvent(ANNA, "1", "view")], attempt=Attempt("another", "digest")))
    assert len(store.changes(0).events) == 2


def test_a_withdrawal_that_is_sent_again_is_answered_as_the_first_time(store: Store) -> None:
    """Though the item is gone by then."""
    write(store, PutItem("a", {}))
    sent = WithdrawItem("a", known=True, attempt=Attempt("key", "digest"))
    assert write(store, sent) == write(store, sent)


def test_one_operation_that_is_wrong_harms_no_other_of_its_transaction(store: Store) -> None:
    """It alone gets the error."""
    replies = write(store, PutItem("a", {}), PatchItem("none", {"price": 1.0}, known=False), PutItem("b", {}))
    assert isinstance(replies[1], NotFound)
    assert [replies[0]["sequence"], replies[2]["sequence"]] == [1, 2]


def test_attributes_come_back_as_they_were_sent(store: Store) -> None:
    """Numbers, lists, texts of every script, and null, which takes one of the release's away."""
    attributes = {"price": 1e-7, "tags": ["a", "b"], "title": "Kleid \N{DRESS} \0", "sale": False, "gone": None}
    write(store, PutItem("ä/ \N{DRESS}", attributes))
    [item] = store.changes(0).items
    assert (item.item_id, item.attributes) == ("ä/ \N{DRESS}", attributes)


def test_an_item_keeps_its_pictures_until_it_gets_others_or_is_withdrawn(store: Store) -> None:
    """Put without pictures it keeps those that it has; put anew after its withdrawal it has none."""
    write(store, PutItem("a", {}, [picture("d1"), picture("d2"), picture("d1")]))
    assert store.changes(0).items[0].pictures == ("d1", "d2")
    write(store, PutItem("a", {"price": 1.0}))
    assert store.changes(0).items[0].pictures == ("d1", "d2")
    write(store, WithdrawItem("a", known=False), PutItem("a", {}))
    assert store.changes(0).items[0].pictures == ()
    write(store, PutItem("of the release", {}))
    assert store.changes(0).items[1].pictures is None


def test_what_was_seen_of_a_picture_is_there_for_whoever_has_the_same_encoder(store: Store) -> None:
    """Vectors by encoder and precision, landmarks, and the bytes of the picture."""
    write(store, PutItem("a", {}, [picture("d1", b"\xff\xd8")]), KeepSeen([picture("d1", b"\xff\xd8")]))
    seen = store.seen(["d1", "none"], encoder="encoder", precision="fp32")
    assert list(seen) == ["d1"]
    assert np.array_equal(seen["d1"].vector, VECTOR)
    assert seen["d1"].landmarks == b"marks"
    assert store.seen(["d1"], encoder="encoder", precision="int8") == {}
    assert store.picture("d1") == b"\xff\xd8"
    assert store.picture("none") is None


def test_what_is_too_old_is_forgotten(store: Store) -> None:
    """Events before a time, replies to idempotency keys, pictures of no item; nothing else."""
    write(store, view(ANNA, "old", timestamp=100.0), view(ANNA, "new", timestamp=200.0))
    write(store, PutItem("a", {}, [picture("d1")], attempt=Attempt("key", "digest")))
    write(store, PutItem("a", {}, [picture("d2")]))
    assert store.prune(events_before=150.0, requests_before=0) == {"events": 1, "requests": 0, "pictures": 0}
    assert store.prune(events_before=150.0, requests_before=1e12) == {"events": 0, "requests": 1, "pictures": 1}
    assert [each.item_id for each in store.changes(0).events] == ["new"]
    assert (store.picture("d1"), store.picture("d2")) == (None, b"jpeg")
    assert list(store.seen(["d1", "d2"], encoder="encoder", precision="fp32")) == ["d2"]
    position = store.position()
    assert write(store, view(ANNA))[0]["sequence"] == position + 1


def test_an_erased_user_leaves_nothing_but_a_mark(store: Store) -> None:
    """Events and sessions go; who asks later can still tell that there was an erasure."""
    write(store, view(ANNA), view(BELA), AddEvents([NewEvent(SESSION, "1", "view")], (SESSION,)))
    write(store, LinkSession(SESSION, ANNA))
    [reply] = write(store, EraseUser(ANNA, erasure_mark(ANNA)))
    assert (reply["events"], reply["sessions"]) == (2, 1)
    assert store.held(ANNA) == {"events": [], "sessions": 0}
    assert len(store.held(BELA)["events"]) == 1
    assert store.is_erased(erasure_mark(ANNA))
    assert not store.is_erased(erasure_mark(BELA))
    write(store, EraseUser(ANNA, erasure_mark(ANNA)))
    assert store.changes(0).erased == [erasure_mark(ANNA)]


def test_no_file_of_sqlite_holds_a_user_who_was_erased(tmp_path: Path) -> None:
    """Neither the database nor what SQLite keeps beside it, while it is open and with many others around."""
    store = Store.open(str(tmp_path / "live.db"))
    others = [hash_user(str(number), KEY) for number in range(50)]
    for number in range(60):
        session = hash_session(f"s{number}", KEY)
        mine = [NewEvent(ANNA if n % 7 == number % 7 else others[(n + number) % 50], f"{n}", "view") for n in range(60)]
        write(store, AddEvents(mine), AddEvents([NewEvent(session, "1", "view")], (session,)))
        if number % 5 == 0:
            write(store, LinkSession(session, ANNA))
    assert any(ANNA.encode() in file.read_bytes() for file in tmp_path.iterdir())
    write(store, EraseUser(ANNA, erasure_mark(ANNA)))
    store.compact()
    assert [file.name for file in tmp_path.iterdir() if ANNA.encode() in file.read_bytes()] == []
    assert sum(others[0].encode() in file.read_bytes() for file in tmp_path.iterdir()) == 1
    store.close()
