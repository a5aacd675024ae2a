"""What users did since the release was trained, in memory, by the keyed hashes of who they are."""

from collections.abc import Iterable, Sequence

from service.recommender.query import MAX_EVENTS, Event
from service.recommender.user_keys import erasure_mark


class Histories:
    """Events of each user and session, the latest MAX_EVENTS of each, in the order of time.

    One thread changes them; others may read meanwhile."""

    def __init__(self) -> None:
        self._events: dict[str, list[Event]] = {}
        self._owners: dict[str, str] = {}  # session key -> user key
        self._erased: set[str] = set()

    def __len__(self) -> int:
        return len(self._events)

    def of(self, keys: Iterable[str]) -> Sequence[Event]:
        """All that those with these keys did, oldest first."""
        named = dict.fromkeys(self._owners.get(key, key) for key in keys)
        found = [event for key in named for event in self._events.get(key, ())]
        return found if len(named) < 2 else sorted(found, key=_when)

    def owner(self, session_key: str) -> str | None:
        """The key of the user whose session it is, or None."""
        return self._owners.get(session_key)

    def was_erased(self, user_key: str) -> bool:
        """Whether the release must not answer from what it was trained on of this user."""
        return bool(self._erased) and erasure_mark(user_key) in self._erased

    def add(self, key: str, event: Event) -> bool:
        """One more event; returns whether it is the first of this user with this item. key: of a user or session."""
        key = self._owners.get(key, key)
        events = list(self._events.get(key, ()))
        first = all(each.item_id != event.item_id for each in events)
        events.append(event)
        if len(events) > 1 and _when(events[-2]) > _when(event):  # it comes late
            events.sort(key=_when)
        self._events[key] = events[-MAX_EVENTS:]
        return first

    def join(self, session_key: str, user_key: str) -> None:
        """From now on what was done in this session was done by the user."""
        self._owners[session_key] = user_key
        events = self._events.pop(session_key, [])
        if events:
            both = sorted([*self._events.get(user_key, ()), *events], key=_when)
            self._events[user_key] = both[-MAX_EVENTS:]

    def erase(self, mark: str) -> None:
        """Forget the user whose erasure has this mark, and what the release knows of them."""
        self._erased.add(mark)
        gone = [key for key in self._events if erasure_mark(key) == mark]
        for key in gone:
            del self._events[key]
        self._owners = {session: key for session, key in self._owners.items() if erasure_mark(key) != mark}


def _when(event: Event) -> float:
    assert event.timestamp is not None, "the store gives each a time"
    return event.timestamp
