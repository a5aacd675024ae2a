"""Who asks: what is known of a user, from training, from the events of the query, or from both."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from service.errors import BadQuery, NotFound, ReleaseMismatch, shown
from service.recommender.factors import DISMISS, Objective, User, last_event_of_each
from service.recommender.query import Event, Query
from service.recommender.release import Release
from service.recommender.user_keys import hash_user, key_check
from service.recommender.user_profile import Profile, describe


class Users:
    """The users of one release."""

    def __init__(self, release: Release, key: str) -> None:
        """key: of the hashes of user ids. Raises ReleaseMismatch where the release was made with another one."""
        self.key = key
        self._release = release
        ranker = release.manifest.ranker
        if ranker and ranker["user_key"] != key_check(key):
            raise ReleaseMismatch(
                "the release's user ids were hashed with another key, so every user would be unknown; "
                "set VITRINE_USER_KEY to the key that it was trained with"
            )

    def know(self, query: Query) -> User | None:
        """The user who asks, or None where nothing is known of them. Raises BadQuery for vectors of another encoder."""
        if query.user_id is None and query.user_key is None and not query.events:
            return None
        photos = self._photos(query.events)
        user = replace(self._history(query), photos=photos)
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
        """What training and the events of the query say."""
        ranker, find = self._release.ranker, self._release.items.find
        row = None
        user_key = query.user_key if query.user_id is None else hash_user(query.user_id, self.key)
        if ranker is not None and user_key is not None:
            row = ranker.user_row(user_key)
        known = [(find(event.item_id), event.event) for event in query.events if event.item_id is not None]
        events = [(item, name) for item, name in known if item is not None]
        rows = np.array([item for item, _ in events], dtype=np.int64)
        names = [name for _, name in events]
        if ranker is None:
            seen, words = last_event_of_each(rows, Objective(1, 0, 1).confidence(names))
            return User(np.empty(0, np.float32), seen[words > 0], seen)
        if events or row is None:
            return ranker.user_with_events(row, rows, ranker.objective.confidence(names))
        return ranker.user(row)

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
