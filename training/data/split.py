"""Which interactions train, and which are held out.

temporal       everything from a moment on: the future never teaches; what a release is trained and judged by
leave-one-out  the last new item of each user; the form of many papers, often with 99 sampled negatives
cold-items     everything about a tenth of the items, drawn at random: nobody has touched them yet
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from service.errors import CatalogueError
from service.recommender.factors import DISMISS
from training.progress import say

MIN_ITEMS_PER_USER = 5
MIN_USERS_PER_ITEM = 10
COLD_SHARE = 0.1
HELD_OUT_SPLITS = ("validation", "val", "test")  # values of a split column that are no training
PROTOCOLS = ("temporal", "leave-one-out", "cold-items")


@dataclass(frozen=True, slots=True)
class Split:
    """train and test, both in the order of time; cutoff: seconds, after all that trains."""

    train: pd.DataFrame
    test: pd.DataFrame
    cutoff: int
    protocol: str = "temporal"


def make(
    interactions: pd.DataFrame,
    protocol: str,
    *,
    test_from: int | None = None,
    seed: int = 0,
    things: np.ndarray | None = None,
) -> Split:
    """Split by the named protocol. things: (items,) the same number for items that are one thing and stay together, or
    None. Raises CatalogueError where nothing is left to train on."""
    if protocol == "leave-one-out":
        return _by_mask(interactions, _last_new(interactions), protocol)
    if protocol == "cold-items":
        items = np.unique(interactions["item"])
        cold = np.random.default_rng(seed).permutation(items)[: max(1, int(COLD_SHARE * len(items)))]
        held = np.isin(interactions["item"], cold)
        if things is not None:
            thing = things[interactions["item"].to_numpy()]
            held = np.isin(thing, thing[held])
        return _by_mask(interactions, held, protocol)
    return at(interactions, test_from)


def at(interactions: pd.DataFrame, test_from: int | None) -> Split:
    """Cut at `test_from` (seconds), or so that the last tenth of the log is held out."""
    times = interactions["timestamp"].to_numpy()
    cutoff = int(np.quantile(times, 0.9)) + 1 if test_from is None else test_from
    late = times >= cutoff
    if late.all():
        raise CatalogueError(
            f"all {len(times)} interactions are at or after the cut ({cutoff}); --test-from must be later"
        )
    if test_from is not None and not late.any():
        last = pd.Timestamp(int(times.max()), unit="s")
        say(
            f"--test-from holds nothing out: the last interaction is of {last:%F %T} UTC; nothing is left to measure on"
        )
    return Split(interactions[~late].reset_index(drop=True), interactions[late].reset_index(drop=True), cutoff)


def _by_mask(interactions: pd.DataFrame, held: np.ndarray, protocol: str) -> Split:
    if held.all():
        raise CatalogueError(f"{protocol}: nothing is left to train on of {len(held)} interactions")
    cutoff = int(interactions["timestamp"].max()) + 1
    return Split(
        interactions[~held].reset_index(drop=True), interactions[held].reset_index(drop=True), cutoff, protocol
    )


def _last_new(interactions: pd.DataFrame) -> np.ndarray:
    """The rows of each user's last item, first touched then; of users with one item alone, none."""
    firsts = ~interactions.duplicated(["user_id", "item"]).to_numpy()
    newest = interactions[firsts].groupby("user_id", sort=False).tail(1)
    lonely = interactions[firsts].groupby("user_id", sort=False)["item"].transform("size") < 2
    newest = newest[~lonely.loc[newest.index].to_numpy()]
    pairs = pd.MultiIndex.from_frame(newest[["user_id", "item"]])
    held: np.ndarray = pd.MultiIndex.from_frame(interactions[["user_id", "item"]]).isin(pairs)
    return held


@dataclass(frozen=True, slots=True)
class HeldOut:
    """What an honest test asks: for each user, the new items they touched in what is held out.

    users: ids; seen, relevant: item rows of each; candidates: (items,) bool, what may be recommended."""

    users: list[str]
    seen: list[np.ndarray]
    relevant: list[np.ndarray]
    candidates: np.ndarray

    def sample(self, size: int) -> "HeldOut":
        """At most `size` users, spread evenly."""
        if len(self.users) <= size:
            return self
        return self.keep(np.linspace(0, len(self.users) - 1, size).astype(int).tolist())

    def keep(self, places: list[int]) -> "HeldOut":
        """Only the users at these places."""
        return HeldOut(
            [self.users[at] for at in places],
            [self.seen[at] for at in places],
            [self.relevant[at] for at in places],
            self.candidates,
        )


def warm(split: Split, *, items: int) -> HeldOut:
    """Users with at least MIN_ITEMS_PER_USER items in training, items that at least MIN_USERS_PER_ITEM users touched
    there; of leave-one-out every user and every touched item. New pairs only: what a user touched before is neither
    asked nor answered."""
    every = split.protocol == "leave-one-out"
    touched = _touched_by(split.train, items)
    return _held_out(
        split, touched >= (1 if every else MIN_USERS_PER_ITEM), at_least=1 if every else MIN_ITEMS_PER_USER
    )


def cold_items(split: Split, *, items: int) -> HeldOut:
    """Items that nobody touched in training but somebody does later, asked for users that training knows."""
    later = np.bincount(split.test["item"], minlength=items) > 0
    return _held_out(split, later & (_touched_by(split.train, items) == 0), at_least=1)


def cold_users(split: Split, *, items: int) -> HeldOut:
    """Users without any item in training, asked for the items that are known."""
    return _held_out(split, _touched_by(split.train, items) >= MIN_USERS_PER_ITEM, at_least=0)


def _touched_by(interactions: pd.DataFrame, items: int) -> np.ndarray:
    return np.bincount(interactions[["user_id", "item"]].drop_duplicates()["item"], minlength=items)


def _held_out(split: Split, candidates: np.ndarray, *, at_least: int) -> HeldOut:
    """at_least: items in training; 0 asks for users without any."""
    pairs = split.train[["user_id", "item"]].drop_duplicates()
    before = {user: group.to_numpy() for user, group in pairs.groupby("user_id", sort=True)["item"]}
    users, seen, relevant = [], [], []
    liked = split.test[split.test["event"] != DISMISS]
    for user, group in liked.groupby("user_id", sort=True)["item"]:
        known = before.get(user, np.empty(0, np.int32))
        if (len(known) < at_least) if at_least else len(known):
            continue
        new = np.setdiff1d(group.unique(), known)
        new = new[candidates[new]]
        if len(new):
            users.append(str(user))
            seen.append(known)
            relevant.append(new)
    return HeldOut(users, seen, relevant, candidates)


def read_cut(text: str | None) -> int | None:
    """A date (2011-11-10) or seconds -> seconds; None for None. Raises CatalogueError."""
    if text is None:
        return None
    moment = pd.Timestamp(int(text), unit="s") if text.isdigit() else pd.to_datetime(text, errors="coerce")
    if pd.isna(moment):
        raise CatalogueError(f"--test-from {text!r} is neither a date such as 2011-11-10 nor seconds since 1970")
    return int((moment.tz_localize("UTC") if moment.tzinfo is None else moment).timestamp())
