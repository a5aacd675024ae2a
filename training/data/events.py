"""Names of events and sizes of values, as logs have them -> what they say of a user's liking.

A name that is not known is never taken for liking: it is counted and left out.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from service.live.requests.event_names import RATED, SILENT, meaning

MOST_RATINGS = 21  # different values of a scale: tenths of points are no ratings
WEIGHT_RANGE = (0.5, 2.0)  # of a value beside an ordinary one


@dataclass(frozen=True, slots=True)
class Known:
    """The events of a log. names: (n,) ours, "" where the value alone says it; rated, silent, unknown, missing: (n,)
    bool."""

    names: np.ndarray
    rated: np.ndarray
    silent: np.ndarray
    unknown: np.ndarray
    missing: np.ndarray


def read_events(column: pd.Series) -> Known:
    """Names as a log has them -> ours."""
    texts = column.fillna("").astype(str).str.strip()
    meanings = texts.map({text: meaning(text) for text in texts.unique()}).to_numpy(dtype=object)
    missing = (texts == "").to_numpy(bool)
    rated, silent = np.asarray(meanings == RATED, bool), np.asarray(meanings == SILENT, bool)
    return Known(np.where(rated | silent, "", meanings), rated, silent, (meanings == "") & ~missing, missing)


@dataclass(frozen=True, slots=True)
class Values:
    """What the values of a log say. weights: (n,) float32 by which a confidence counts; dismissed: (n,) bool;
    note: how they were understood."""

    weights: np.ndarray
    dismissed: np.ndarray
    note: str


def read_values(values: np.ndarray, events: np.ndarray) -> Values:
    """values: (n,) float64, NaN where a row has none; events: (n,) names, "" where the value is all there is.

    Below zero is a dismissal (a return, a thumb down), and so is zero where there is no event beside it. Ratings, few
    different whole or half steps up to 10 at most, count from 0.5 for the lowest to 1.75 for the highest. Other values
    count by how they compare with the median of their event, by the logarithm: 10 times as much weighs half as much
    again."""
    alone = events == ""
    given = np.isfinite(values)
    dismissed = given & ((values < 0) | (alone & (values == 0)))
    weights = np.ones(len(values), np.float32)
    liked = given & ~dismissed & (values > 0)
    notes = []
    if _are_ratings(values[liked & alone]):
        low, high = float(values[liked & alone].min()), float(values[liked & alone].max())
        rated = liked & alone
        weights[rated] = 0.5 + 1.25 * (values[rated] - low) / (high - low)
        notes.append(f"value: ratings from {low:g} to {high:g}; the lowest counts 0.5, the highest 1.75")
        liked &= ~alone
    for name in np.unique(events[liked]) if liked.any() else ():
        own = liked & (events == name)
        middle = float(np.median(values[own]))
        weights[own] = np.clip(1 + 0.5 * np.log10(values[own] / middle), *WEIGHT_RANGE)
        if values[own].min() < values[own].max():
            notes.append(f"value{' of ' + str(name) if name else ''}: counts by its size beside the median, {middle:g}")
    if dismissed.any():
        notes.append(f"value: {int(dismissed.sum())} rows at or below zero are dismissals")
    return Values(weights, dismissed, "; ".join(notes))


def _are_ratings(values: np.ndarray) -> bool:
    """Whether positive values are steps of one scale, such as 1 to 5 stars or 0.5 to 10. Of counts the lowest is the
    most frequent; of ratings it is not."""
    steps, counts = np.unique(values, return_counts=True)
    if not 3 <= len(steps) <= MOST_RATINGS or steps.max() > 10 or len(values) < 2 * len(steps):
        return False
    return bool((steps * 2 == np.round(steps * 2)).all() and counts.argmax() > 0)
