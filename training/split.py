"""Which interactions train, and which are held out: a cut in time, so that the future never teaches."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from service.errors import CatalogueError

MIN_ITEMS_PER_USER = 5
MIN_USERS_PER_ITEM = 10


@dataclass(frozen=True, slots=True)
class Split:
    """train and test by time; cutoff: seconds, the first moment that is held out."""

    train: pd.DataFrame
    test: pd.DataFrame
    cutoff: int


def at(interactions: pd.DataFrame, test_from: int | None) -> Split:
    """Cut at `test_from` (seconds), or so that the last tenth of the log is held out."""
    times = interactions["timestamp"].to_numpy()
    cutoff = int(np.quantile(times, 0.9)) + 1 if test_from is None else test_from
    late = times >= cutoff
    if late.all():
        raise CatalogueError(
            f"all {len(times)} interactions are at or after the cut ({cutoff}); --test-from must be later"
        )
    return Split(interactions[~late].reset_index(drop=True), interactions[late].reset_index(drop=True), cutoff)


@dataclass(frozen=True, slots=True)
class HeldOut:
    """What an honest test asks: for each user, the new items they touched after the cut.

    users: ids with at least MIN_ITEMS_PER_USER items in training; seen, relevant: item rows of each;
    candidates: (items,) bool, the items that at least MIN_USERS_PER_ITEM users touched in training."""

    users: list[str]
    seen: list[np.ndarray]
    relevant: list[np.ndarray]
    candidates: np.ndarray


def held_out(split: Split, *, items: int) -> HeldOut:
    """New pairs only: what a user touched before the cut is neither asked nor answered."""
    pairs = split.train[["user_id", "item"]].drop_duplicates()
    candidates = np.bincount(pairs["item"], minlength=items) >= MIN_USERS_PER_ITEM
    before = {user: group.to_numpy() for user, group in pairs.groupby("user_id", sort=True)["item"]}
    users, seen, relevant = [], [], []
    for user, group in split.test.groupby("user_id", sort=True)["item"]:
        known = before.get(user)
        if known is None or len(known) < MIN_ITEMS_PER_USER:
            continue
        new = np.setdiff1d(group.unique(), known)
        new = new[candidates[new]]
        if len(new):
            users.append(str(user))
            seen.append(known)
            relevant.append(new)
    return HeldOut(users, seen, relevant, candidates)
