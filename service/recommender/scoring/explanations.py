"""The reasons for a recommended item: which of the user's past items it is like."""

from collections.abc import Sequence

import numpy as np

from service.recommender.factors import User
from service.recommender.scoring.terms import RECENT, Sources

REASONS = 2  # past items named as reasons for a recommended one
_NOTHING = np.empty(0, np.int64)


def because(sources: Sources, rows: Sequence[np.ndarray], users: Sequence[User | None]) -> list[list[list[int]]]:
    """For each query, and each of its rows, the rows of the user's past items nearest to it, by picture, else by
    factors; nearest first. rows: (n,) each."""
    pasts = [_NOTHING if user is None else user.history[-RECENT:] for user in users]
    if not any(map(len, pasts)) or (sources.index is None and sources.ranker is None):
        return [[[] for _ in row] for row in rows]
    return [_reasons(_likeness(sources, row, past), past) for row, past in zip(rows, pasts, strict=True)]


def _reasons(likeness: np.ndarray, past: np.ndarray) -> list[list[int]]:
    """likeness: (n, past items) -> of each line the REASONS past items most alike; what is not alike at all is none."""
    lines, found = np.arange(len(likeness)), []
    for _ in range(min(REASONS, len(past))):
        nearest = likeness.argmax(axis=1)
        found.append(np.where(likeness[lines, nearest] > 0, past[nearest], -1).tolist())
        likeness[lines, nearest] = -1
    return [[row for row in line if row >= 0] for line in zip(*found, strict=True)] or [[] for _ in lines]


def _likeness(sources: Sources, rows: np.ndarray, past: np.ndarray) -> np.ndarray:
    """(n, m), larger for those more alike; comparable within a row."""
    likeness: np.ndarray
    if sources.index is not None:
        likeness = sources.index.vectors_or_zero(rows) @ sources.index.vectors_or_zero(past).T
    else:
        assert sources.ranker is not None
        factors_of, lengths = sources.ranker.factors_of, sources.ranker.inverse_lengths
        # the length of a row's own factor changes neither the order of its reasons nor their sign
        likeness = (factors_of(rows) @ factors_of(past).T) * lengths[past]
    return likeness
