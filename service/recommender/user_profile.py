"""What a release holds about a user, in words and items: tastes, the segment, and the data it rests on."""

import json
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from service.recommender.catalogue.items import Items
from service.recommender.factors import Ranker, User

TASTES = 5  # values named of a column
LEAST = 0.05  # share of the history that a value must make up
STANDING_FOR = 10  # items


@dataclass(frozen=True, slots=True)
class Segment:
    """Users of like taste. items: typical ones, by id."""

    segment: int
    shoppers: int
    items: list[str]


@dataclass(frozen=True, slots=True)
class Segments:
    """centroids: (segments, factors) float32, unit length."""

    centroids: np.ndarray
    segments: list[Segment]

    @classmethod
    def open(cls, folder: Path) -> "Segments | None":
        """Open segments.npy and segments.json of ranker/, or None where a release has none."""
        if not (folder / "segments.json").exists():
            return None
        described = [Segment(**segment) for segment in json.loads((folder / "segments.json").read_text())]
        return cls(np.load(folder / "segments.npy", allow_pickle=False), described)

    def of(self, user: User) -> Segment | None:
        """The segment whose direction is nearest to the user's factor."""
        if not self.segments or not user.factor.any():
            return None
        return self.segments[int(np.argmax(self.centroids @ user.factor))]


@dataclass(frozen=True, slots=True)
class Taste:
    """One value that a user touches more, or less, than others do. share: of the user's items; usual: of all
    touches; lift: share / usual."""

    value: str
    share: float
    usual: float
    lift: float


@dataclass(frozen=True, slots=True)
class Profile:
    """What a release holds about one user. `data` says what it rests on."""

    release: str
    tastes: dict[str, list[Taste]]
    items: list[str]
    segment: Segment | None
    data: dict[str, Any]


def describe(
    user: User, *, release: str, items: Items, ranker: Ranker, segments: Segments | None, cutoff: int | None
) -> Profile:
    """The profile of a user of the training data."""
    tastes = {}
    for column, kind in items.kinds.items():
        if kind in ("category", "tags", "boolean") and (found := _tastes(items, column, user.history)):
            tastes[column] = found
    dismissed = len(user.seen) - len(user.history)
    data = {
        "items": len(user.history),
        "dismissed": dismissed,
        "profile_columns": ranker.user_base is not None and user.row is not None and bool(_base(ranker, user).any()),
        "until": cutoff,
    }
    segment = segments.of(user) if segments is not None else None
    if segment is not None:
        segment = replace(segment, items=[item for item in segment.items if items.find(item) is not None])
    return Profile(release, tastes, [items.ids[row] for row in _standing_for(ranker, user)], segment, data)


def _tastes(items: Items, column: str, history: np.ndarray) -> list[Taste]:
    """The values with the largest lift above 1, of those that make up a part of the history."""
    own = Counter(value for row in history for value in items.values(column, int(row)))
    usual = items.usual_shares(column)
    total = sum(own.values())
    found = [
        Taste(value, count / total, usual[value], count / total / usual[value])
        for value, count in own.items()
        if count >= LEAST * total and value in usual and count / total > usual[value]
    ]
    return sorted(found, key=lambda taste: (-taste.lift, taste.value))[:TASTES]


def _standing_for(ranker: Ranker, user: User) -> np.ndarray:
    """Past items that the factors place nearest to the user."""
    scores = ranker.scores(user, user.history)
    chosen: np.ndarray = user.history[np.argsort(-scores, kind="stable")[:STANDING_FOR]]
    return chosen


def _base(ranker: Ranker, user: User) -> np.ndarray:
    assert ranker.user_base is not None
    assert user.row is not None
    return np.asarray(ranker.user_base[user.row])
