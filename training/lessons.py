"""What shoppers touched next: questions by which the ranker's parameters and the weights of the final sum are chosen.

Each is a share of a shopper's last events, whatever the clock says, asked of a ranker that has not seen them.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from service.ranker import DISMISS, Ranker, Shopper
from service.terms import Sources, log_price, scaled_popularity, term_values
from training import ranker
from training.ranker import RankerParameters
from training.sides import Known
from training.times import DAY

SHOPPERS = 800
CANDIDATES = 4000
HELD = 0.1  # of a shopper's events
KEPT = 0.5  # of them, at least, where a whole day is held out


@dataclass(frozen=True, slots=True)
class Choice:
    """One lesson as the weights see it: what a shopper touched next, among what they might have.

    values: term -> (candidates,); chosen: (candidates,) bool."""

    values: dict[str, np.ndarray]
    chosen: np.ndarray


@dataclass(frozen=True, slots=True)
class Told:
    """What the log says of the items. popularity: (items,), scaled; trend: (items,)."""

    popularity: np.ndarray
    trend: np.ndarray


@dataclass(frozen=True, slots=True)
class Lesson:
    """What one shopper touched last that was new to them, and what the log said of the items just before.

    row: of the ranker, which has not seen it; wanted: item rows."""

    row: int
    wanted: np.ndarray
    told: Told


@dataclass(frozen=True, slots=True)
class Lessons:
    """All of them. at_end: what the log says when it ends, as a release does."""

    sources: Sources
    each: list[Lesson]
    at_end: Told

    @property
    def ranker(self) -> Ranker:
        """That has not seen what is asked."""
        assert self.sources.ranker is not None
        return self.sources.ranker

    def choices(self, *, seed: int, known: bool = True, at_end: bool = False) -> list[Choice]:
        """Each lesson without a photo. known: whether the shopper is; at_end: with what the log says when it ends."""
        rng = np.random.default_rng(seed)
        return [self._choice(lesson, rng, known, self.at_end if at_end else lesson.told) for lesson in self.each]

    def shopper(self, lesson: Lesson) -> Shopper:
        """As the ranker of the lessons knows them."""
        return self.ranker.shopper(lesson.row)

    def candidates(self, shopper: Shopper, wanted: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Rows to choose from: what is wanted first, then others drawn at random that are new to the shopper."""
        others = np.setdiff1d(rng.permutation(len(self.at_end.trend))[:CANDIDATES], np.union1d(shopper.seen, wanted))
        return np.concatenate([wanted, others])

    def _choice(self, lesson: Lesson, rng: np.random.Generator, known: bool, told: Told) -> Choice:
        shopper = self.shopper(lesson)
        rows = self.candidates(shopper, lesson.wanted, rng)
        [values] = term_values(self.sources, [rows], [None], [shopper if known else None], [None])
        return Choice(
            values | {"popularity": told.popularity[rows], "trend": told.trend[rows]},
            np.arange(len(rows)) < len(lesson.wanted),
        )


def look_ahead(
    interactions: pd.DataFrame, *, items: int, parameters: RankerParameters, known: Known, seed: int,
    shoppers: int = SHOPPERS, beside: bool = True,
) -> Lessons | None:  # fmt: skip
    """Train without the last events of some shoppers, to see what they were. None where there is nothing to see.

    beside: whether the terms of items beside items are wanted. interactions: in the order of time. The shoppers are
    drawn from the half that was active last, so that the weights are those of the present."""
    held = last_events(interactions)
    pairs = interactions.loc[held, ["user_id", "item", "timestamp"]]
    latest = pairs.groupby("user_id", sort=True)["timestamp"].min().sort_values(kind="stable")
    latest = latest.iloc[len(latest) // 2 :]
    if latest.empty:
        return None
    chosen = latest.iloc[np.sort(np.random.default_rng(seed).permutation(len(latest))[:shoppers])]
    held &= interactions["user_id"].isin(chosen.index).to_numpy()
    before = interactions[~held].reset_index(drop=True)
    made = ranker.train(
        before, items=items, parameters=parameters, user_key="", sides=known.sides, quiet=True, beside=beside
    )
    row_of = {user: row for row, user in enumerate(made.users)}
    wanted = interactions[held].groupby("user_id")["item"].unique()
    lessons = []
    found = ranker.moments(interactions, items=items, times=chosen.to_numpy())
    for user, moment in zip(chosen.index, found, strict=True):
        shopper = made.ranker.shopper(row_of[user])
        new = np.setdiff1d(wanted[user], shopper.seen)
        if len(new) and len(shopper.history):
            lessons.append(Lesson(row_of[user], new, _told(moment)))
    sources = Sources(
        known.index, made.ranker, np.zeros(items, np.float32), log_price(known.prices), kinds=known.categories
    )
    return Lessons(sources, lessons, _told(ranker.at_end(before, items=items))) if lessons else None


def last_events(interactions: pd.DataFrame) -> np.ndarray:
    """(interactions,) bool: a tenth of each shopper's events, the last ones; with the rest of the day on which they
    begin, where that leaves half of all. Who comes back is asked for a visit, who came once for its end.

    interactions: in the order of time. Dismissals are never held out."""
    user = pd.factorize(interactions["user_id"])[0]
    times = interactions["timestamp"].to_numpy()
    counts = np.bincount(user)
    # how many of the same shopper come after each
    after = interactions.groupby(user, sort=False).cumcount(ascending=False).to_numpy()
    tail = (after < np.ceil(counts[user] * HELD)) & (counts[user] > 1)
    begins = np.full(len(counts), np.iinfo(np.int64).max)
    np.minimum.at(begins, user[tail], times[tail])
    day = times > begins[user] - DAY
    whole = np.bincount(user[day], minlength=len(counts)) <= counts * (1 - KEPT)
    held: np.ndarray = np.where(whole[user], day, tail)
    return held & (interactions["event"] != DISMISS).to_numpy()


def _told(moment: ranker.Moment) -> Told:
    return Told(scaled_popularity(moment.popularity), moment.trend)
