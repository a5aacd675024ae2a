"""How far two answers, or two ways to search, agree."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Comparison:
    """What the candidate's answer to one query is like beside production's. overlap: share of production's first ten
    items that are among its own; correlation: of the two orders, 1 for the same to -1 for nothing in common; cold:
    share of items that nobody has touched, and production's; coverage: share of the catalogue shown so far, and
    production's; seconds: its own and production's, where both were timed."""

    overlap: float
    correlation: float
    cold: float
    cold_production: float
    coverage: float
    coverage_production: float
    seconds: tuple[float, float] | None = None


def overlap(expected: Sequence[object], found: Iterable[object]) -> float:
    """The share of what is expected that was found; 0 where nothing is expected."""
    return len(set(expected) & set(found)) / max(1, len(expected))


def overlaps(expected: Iterable[Sequence[object]], found: Iterable[Iterable[object]]) -> np.ndarray:
    """`overlap` of each pair: (n,) float64."""
    return np.array([overlap(one, other) for one, other in zip(expected, found, strict=True)])


def rank_correlation(a: Sequence[str], b: Sequence[str]) -> float:
    """Kendall's tau of two lists that need not hold the same items: 1 - 2 K / K of lists with nothing in common, where
    K counts the pairs that they order otherwise, and half of those of which only one list knows both (Fagin, Kumar and
    Sivakumar, 2003)."""
    if not a or not b:
        return 1.0 if list(a) == list(b) else -1.0
    place_a, place_b = ({item: place for place, item in enumerate(ranked)} for ranked in (a, b))
    union = sorted(place_a.keys() | place_b.keys())
    distance = 0.0
    for at, i in enumerate(union):
        for j in union[at + 1 :]:
            known_a, known_b = (
                [item for item in (i, j) if item in places] for places in (place_a, place_b)
            )  # fmt: skip
            if len(known_a) == len(known_b) == 2:
                distance += (place_a[i] < place_a[j]) != (place_b[i] < place_b[j])
            elif {len(known_a), len(known_b)} == {0, 2}:
                distance += 0.5
            elif len(known_a) == len(known_b) == 1:
                distance += 1
            else:  # one list knows both, the other one of them, which stands before what it does not know
                places, [known] = (place_a, known_b) if len(known_a) == 2 else (place_b, known_a)
                other = j if known == i else i
                distance += places[other] < places[known]
    n, m = len(a), len(b)
    most = n * m + (n * (n - 1) + m * (m - 1)) / 4
    return 1 - 2 * distance / most
