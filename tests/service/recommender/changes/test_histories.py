"""What users did since: late events, sessions that are joined, the latest MAX_EVENTS, erasure."""

import random

import pytest

from service.recommender.changes.histories import Histories
from service.recommender.query import MAX_EVENTS, Event
from service.recommender.user_keys import erasure_mark


def event(item_id: str, timestamp: float, name: str = "view") -> Event:
    """One event."""
    return Event(item_id, name, timestamp)


def items(histories: Histories, *keys: str) -> list[str | None]:
    """What those with these keys touched, oldest first."""
    return [each.item_id for each in histories.of(keys)]


def test_events_that_come_late_stand_where_they_belong() -> None:
    """In whatever order they come, they are told in the order of time; equal times in the order of coming."""
    times = list(range(30))
    random.Random(0).shuffle(times)
    histories = Histories()
    for time in times:
        histories.add("a", event(str(time), time))
    histories.add("a", event("again", 7))
    expected = [str(time) for time in range(30)]
    expected.insert(8, "again")
    assert items(histories, "a") == expected


def test_the_first_event_with_an_item_is_told_apart() -> None:
    """Of each user for themselves."""
    histories = Histories()
    assert histories.add("a", event("1", 1))
    assert not histories.add("a", event("1", 2))
    assert histories.add("b", event("1", 3))


def test_the_latest_events_are_kept() -> None:
    """MAX_EVENTS of each; one that comes too late for them is not."""
    histories = Histories()
    for time in range(MAX_EVENTS + 10):
        histories.add("a", event(str(time), 100 + time))
    histories.add("a", event("too late", 1))
    assert items(histories, "a") == [str(time) for time in range(10, MAX_EVENTS + 10)]


def test_sessions_that_are_joined_are_one_history_with_the_users() -> None:
    """What was done before, in either, and what comes in the session later, in the order of time."""
    histories = Histories()
    histories.add("user", event("2", 2))
    histories.add("one", event("1", 1))
    histories.add("other", event("3", 3))
    histories.join("one", "user")
    histories.join("other", "user")
    histories.add("one", event("4", 4))
    for keys in (["user"], ["one"], ["one", "other", "user"]):
        assert items(histories, *keys) == ["1", "2", "3", "4"]
    assert histories.owner("one") == "user"
    assert histories.owner("user") is None
    assert len(histories) == 1


def test_many_events_of_a_session_push_out_a_users_oldest() -> None:
    """Together they are MAX_EVENTS at most."""
    histories = Histories()
    for time in range(MAX_EVENTS):
        histories.add("user", event(f"u{time}", time))
        histories.add("session", event(f"s{time}", time + 0.5))
    histories.join("session", "user")
    found = items(histories, "user")
    assert len(found) == MAX_EVENTS
    assert found[-2:] == [f"u{MAX_EVENTS - 1}", f"s{MAX_EVENTS - 1}"]


def test_a_session_that_is_joined_to_another_user_goes_on_with_that_one() -> None:
    """What was done until then stays the first one's."""
    histories = Histories()
    histories.add("session", event("1", 1))
    histories.join("session", "anna")
    histories.join("session", "bela")
    histories.add("session", event("2", 2))
    assert (items(histories, "anna"), items(histories, "bela")) == (["1"], ["2"])


def test_a_user_and_a_session_that_is_nobodys_are_answered_together() -> None:
    """As a query that names both asks."""
    histories = Histories()
    histories.add("user", event("2", 2))
    histories.add("session", event("1", 1))
    assert items(histories, "user", "session") == ["1", "2"]
    assert items(histories, "user", "user") == ["2"]


@pytest.mark.parametrize("joined", [True, False])
def test_an_erased_user_is_forgotten(joined: bool) -> None:
    """With their sessions; a session that was theirs is nobody's again; what comes later counts."""
    histories = Histories()
    histories.add("user", event("1", 1))
    histories.add("session", event("2", 2))
    if joined:
        histories.join("session", "user")
    assert not histories.was_erased("user")
    histories.erase(erasure_mark("user"))
    assert histories.was_erased("user")
    assert not histories.was_erased("session")
    assert items(histories, "user") == []
    assert items(histories, "session") == ([] if joined else ["2"])
    assert histories.owner("session") is None
    histories.add("user", event("3", 3))
    assert items(histories, "user") == ["3"]
