"""Who asks: what is known of a user, from training, from the events of the query, or from both."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from service.errors import BadQuery, NotFound, ReleaseMismatch, shown
from service.recommender.changes.histories import Histories
from service.recommender.factors import DISMISS, Objective, User, last_event_of_each
from service.recommender.query import Event, Query
from service.recommender.release import Release
from service.recommender.user_keys import hash_session, hash_user, key_check
from service.recommender.user_profile import Profile, describe


class Users:
    """The users of one release."""

    def __init__(self, release: Release, key: str) -> None:
        """key: of the hashes of user ids. Raises ReleaseMismatch where the release was made with another one."""
        self.key = key
        self.since = Histories()  # what they did after the release was trained
        self._release = release
        ranker = release.manifest.ranker
        if ranker and ranker["user_key"] != key_check(key):
            raise ReleaseMismatch(
                "the release's user ids were hashed with another key, so every user would be unknown; "
                "set VITRINE_USER_KEY to the key that it was trained with"
            )

    def know(self, query: Query) -> User | None:
        """The user who asks, or None where nothing is known of them. Raises BadQuery for vectors of another encoder."""
        if not (query.user_id or query.user_key or query.session_id or query.events):
            return None
        photos = self._photos(query.events)
        user = replace(self._present(self._history(query)), photos=photos)
        # no history, profile or photos: anonymous
        return None if not len(user.seen) and not user.factor.any() and photos is None else user

    def profile(self, user_id: str) -> Profile:
        """What the release holds about a user of the training data. Raises NotFound."""
        release = self._release
        user = self.know(Query(user_id=user_id))
        if release.ranker is None or user is None or not len(user.seen):
            raise NotFound(f"this release holds no history of user {shown(user_id)}", field="user_id")
        return describe(
            user,
            release=release.number,
            items=release.items,
            ranker=release.ranker,
            segments=release.segments,
            cutoff=release.manifest.data["cutoff"],
        )

    def unknown_items(self, query: Query) -> list[str]:
        """Items of the query's events that this release does not hold."""
        named = dict.fromkeys(event.item_id for event in query.events if event.item_id is not None)
        return [item for item in named if self._release.items.find(item) is None]

    def _history(self, query: Query) -> User:
        """What training, the events since, and those of the query say."""
        ranker, find = self._release.ranker, self._release.items.find
        keys = self._keys(query)
        row = None
        if ranker is not None and (user_key := self._user_key(query, keys)) is not None:
            row = None if self.since.was_erased(user_key) else ranker.user_row(user_key)
        known = [
            (find(event.item_id), event.event)
            for event in (*self.since.of(keys), *query.events)
            if event.item_id is not None
        ]
        events = [(item, name) for item, name in known if item is not None]
        rows = np.array([item for item, _ in events], dtype=np.int64)
        names = [name for _, name in events]
        if ranker is None:
            seen, words = last_event_of_each(rows, Objective(1, 0, 1).confidence(names))
            return User(np.empty(0, np.float32), seen[words > 0], seen)
        if events or row is None:
            return ranker.user_with_events(row, rows, ranker.objective.confidence(names))
        return ranker.user(row)

    def _keys(self, query: Query) -> list[str]:
        """The keyed hashes of who asks: a user, a session, or both."""
        keys = [] if query.user_key is None else [query.user_key]
        if query.user_id is not None:
            keys = [hash_user(query.user_id, self.key)]
        return keys if query.session_id is None else [*keys, hash_session(query.session_id, self.key)]

    def _user_key(self, query: Query, keys: Sequence[str]) -> str | None:
        """The user who asks, also one who is known by a session alone."""
        if query.user_id is not None or query.user_key is not None:
            return keys[0]
        return self.since.owner(keys[0]) if keys else None

    def _present(self, user: User) -> User:
        """The user without items that were withdrawn since."""
        items = self._release.items
        if not items.withdrawn:
            return user
        return replace(
            user, history=user.history[items.is_there(user.history)], seen=user.seen[items.is_there(user.seen)]
        )

    def _photos(self, events: Sequence[Event]) -> np.ndarray | None:
        """Unit vectors of the photos among the events that were not dismissed, or None. Raises BadQuery."""
        sent = [event for event in events if event.vector is not None and event.event != DISMISS]
        if not sent:
            return None
        encoder = self._release.manifest.encoder
        if encoder is None:
            raise BadQuery(
                "this release was made from a catalogue without pictures: it knows no vectors", field="events"
            )
        others = {str(event.encoder)[:12] for event in sent if event.encoder != encoder["fingerprint"]}
        if others:
            raise BadQuery(
                f"events: a vector was made by encoder {', '.join(sorted(others))}, and release {self._release.number} "
                f"has encoder {encoder['fingerprint'][:12]}: they cannot be compared; send the photo again",
                field="events",
            )
        vectors = [event.vector for event in sent if event.vector is not None]
        if any(len(vector) != encoder["dim"] for vector in vectors):
            raise BadQuery(
                f"events: a vector of this release has {encoder['dim']} numbers; got {[len(v) for v in vectors]}",
                field="events",
            )
        photos = np.array(vectors, dtype=np.float32)
        return photos / np.linalg.norm(photos, axis=1, keepdims=True)
