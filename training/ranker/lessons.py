"""What users touched next: questions by which the ranker's parameters and the weights of the final sum are chosen.

Where users come back, the questions are what a release is asked: what they touch in the last tenth of the log, of a
ranker that knows nothing of that time. Where they come once, or the clock says nothing, each is a share of a user's
last events, whatever the clock says, of a ranker that has not seen those.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from service.recommender.factors import DISMISS, Ranker, User
from service.recommender.scoring.terms import Sources, log_price, scaled_popularity, term_values
from training.data.side_information import Known
from training.data.times import DAY
from training.ranker import fitting
from training.ranker.fitting import RankerParameters

USERS = 800
CANDIDATES = 4000
HELD = 0.1  # of the log, or of a user's events
KEPT = 0.5  # of them, at least, where a whole day is held out
BACK = 0.5  # of all events, at least, are later than a day after the user's first: users come back
ENOUGH = 100  # of such users, for them to speak for all


@dataclass(frozen=True, slots=True)
class Choice:
    """One lesson as the weights see it: what a user touched next, among what they might have.

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
    """What one user touched last that was new to them, and what the log said of the items just before.

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
        """Each lesson without a photo. known: whether the user is; at_end: with what the log says when it ends."""
        rng = np.random.default_rng(seed)
        return [self._choice(lesson, rng, known, self.at_end if at_end else lesson.told) for lesson in self.each]

    def user(self, lesson: Lesson) -> User:
        """As the ranker of the lessons knows them."""
        return self.ranker.user(lesson.row)

    def candidates(self, user: User, wanted: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Rows to choose from: what is wanted first, then others drawn at random that are new to the user.

        wanted: (n,) rows -> (m,) rows."""
        others = np.setdiff1d(rng.permutation(len(self.at_end.trend))[:CANDIDATES], np.union1d(user.seen, wanted))
        return np.concatenate([wanted, others])

    def _choice(self, lesson: Lesson, rng: np.random.Generator, known: bool, told: Told) -> Choice:
        user = self.user(lesson)
        rows = self.candidates(user, lesson.wanted, rng)
        [values] = term_values(self.sources, [rows], [None], [user if known else None], [None])
        return Choice(
            values | {"popularity": told.popularity[rows], "trend": told.trend[rows]},
            np.arange(len(rows)) < len(lesson.wanted),
        )


def look_ahead(
    interactions: pd.DataFrame,
    *,
    items: int,
    parameters: RankerParameters,
    known: Known,
    seed: int,
    users: int = USERS,
    beside: bool = True,
) -> Lessons | None:
    """Train without what came last, to see what users touched then. None where there is nothing to see.

    beside: whether the terms of items beside items are wanted. interactions: in the order of time."""
    held, begins = _held_out(interactions, np.random.default_rng(seed), users)
    if begins.empty:
        return None
    before = interactions[~held].reset_index(drop=True)
    made = fitting.train(
        before, items=items, parameters=parameters, user_key="", sides=known.sides, quiet=True, beside=beside
    )
    row_of = {user: row for row, user in enumerate(made.users)}
    liked = interactions["event"] != DISMISS
    wanted = interactions[held & liked].groupby("user_id")["item"].unique()
    lessons = []
    found = fitting.moments(interactions, items=items, times=begins.to_numpy())
    for user_id, moment in zip(begins.index, found, strict=True):
        user = made.ranker.user(row_of[user_id])
        new = np.setdiff1d(wanted.get(user_id, []), user.seen)
        if len(new) and len(user.history):
            lessons.append(Lesson(row_of[user_id], new, _told(moment)))
    sources = Sources(
        known.index, made.ranker, np.zeros(items, np.float32), log_price(known.prices), kinds=known.categories
    )
    return Lessons(sources, lessons, _told(fitting.at_end(before, items=items))) if lessons else None


def _held_out(interactions: pd.DataFrame, rng: np.random.Generator, users: int) -> tuple[np.ndarray, pd.Series]:
    """(interactions,) bool: what is held out; and when that begins for each user who is asked, by id, earliest
    first. Where it begins for all at once, nobody teaches what came then."""
    if (found := _last_tenth(interactions)) is not None:
        return found[0], _some(found[1], rng, users)
    held = last_events(interactions)
    pairs = interactions.loc[held, ["user_id", "timestamp"]]
    begins = pairs.groupby("user_id", sort=True)["timestamp"].min().sort_values(kind="stable")
    # those who were active last, so that the weights are those of the present; the others go on teaching
    begins = _some(begins.iloc[len(begins) // 2 :], rng, users)
    return held & interactions["user_id"].isin(begins.index).to_numpy(), begins


def _some(begins: pd.Series, rng: np.random.Generator, users: int) -> pd.Series:
    return begins.iloc[np.sort(rng.permutation(len(begins))[:users])]


def _last_tenth(interactions: pd.DataFrame) -> tuple[np.ndarray, pd.Series] | None:
    """As `_held_out`: the last tenth of the log by its clock, and all who were there before and in it; None where too
    few come back."""
    if interactions.empty:
        return None
    times, (user, ids) = interactions["timestamp"].to_numpy(), pd.factorize(interactions["user_id"])
    first = times[np.unique(user, return_index=True)[1]]
    late: np.ndarray = times > np.quantile(times, 1 - HELD)
    known = np.intersect1d(user[late], user[~late])
    if (times > first[user] + DAY).mean() < BACK or len(known) < ENOUGH:
        return None
    return late, pd.Series(times[late][0], index=np.sort(ids[known]))


def last_events(interactions: pd.DataFrame) -> np.ndarray:
    """(interactions,) bool: a tenth of each user's events, the last ones; with the rest of the day on which they
    begin, where that leaves half of all. Who comes back is asked for a visit, who came once for its end.

    interactions: in the order of time. Dismissals are never held out."""
    user = pd.factorize(interactions["user_id"])[0]
    times = interactions["timestamp"].to_numpy()
    counts = np.bincount(user)
    # how many of the same user come after each
    after = interactions.groupby(user, sort=False).cumcount(ascending=False).to_numpy()
    tail = (after < np.ceil(counts[user] * HELD)) & (counts[user] > 1)
    begins = np.full(len(counts), np.iinfo(np.int64).max)
    np.minimum.at(begins, user[tail], times[tail])
    day = times > begins[user] - DAY
    whole = np.bincount(user[day], minlength=len(counts)) <= counts * (1 - KEPT)
    held: np.ndarray = np.where(whole[user], day, tail)
    return held & (interactions["event"] != DISMISS).to_numpy()


def _told(moment: fitting.Moment) -> Told:
    return Told(scaled_popularity(moment.popularity), moment.trend)
