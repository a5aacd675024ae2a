"""What an answer is worth beyond being right: coverage, novelty, and for whom."""

from typing import Any

import numpy as np
import pandas as pd

from training import measures
from training.data.catalogue import Catalogue
from training.data.split import HeldOut
from training.evaluation.evaluated_release import EvaluatedRelease

GROUPS = 8  # of a users column, at most
GROUP_USERS = 20  # at least, for a figure


def beyond_accuracy(asked: EvaluatedRelease, ranked: np.ndarray, held: HeldOut) -> dict[str, float]:
    """What the first ten answers are like together. coverage: share of candidates that anyone is shown; novelty:
    mean information of an item's popularity, in bits (Zhou et al., 2010); diversity: mean of 1 - cosine between
    items of a list; gini: how unevenly candidates are shown. ranked: (users, DEPTH) rows, -1 where there are fewer."""
    release = asked.recommender.release
    top = ranked[:, :10]
    shown = np.bincount(top[top >= 0], minlength=len(held.candidates))[held.candidates]
    users = max(1, asked.cut.train["user_id"].nunique())
    share = np.maximum(release.items.popularity, 1) / users
    novelty = -np.log2(np.minimum(share, 1))
    spread = []
    for row in top:
        vectors = asked.recommender.scorer.likeness_vectors(row[row >= 0])
        if len(vectors) > 1:
            cosines = vectors @ vectors.T
            spread.append(1 - (cosines.sum() - np.trace(cosines)) / (len(vectors) * (len(vectors) - 1)))
    return {
        "coverage": float((shown > 0).mean()),
        "novelty": float(novelty[top[top >= 0]].mean()) if (top >= 0).any() else 0.0,
        "diversity": float(np.mean(spread)) if spread else 0.0,
        "gini": measures.gini(shown),
    }


def by_group(catalogue: Catalogue, held: HeldOut, ndcg: np.ndarray) -> dict[str, Any]:
    """nDCG@10 of groups of users by each column of users. ndcg: (users,)."""
    found: dict[str, Any] = {}
    for column, groups in group_members(catalogue, held.users).items():
        figures = {
            name: {"users": int(members.sum()), "ndcg_at_10": float(ndcg[members].mean())}
            for name, members in groups.items()
        }
        worst = min(figures, key=lambda name: figures[name]["ndcg_at_10"])
        found[column] = {"groups": figures, "worst": worst}
    return found


def group_members(catalogue: Catalogue, users: list[str]) -> dict[str, dict[str, np.ndarray]]:
    """The largest groups of users by each column of users, of a column of numbers by quarters:
    column -> group -> (users,) bool."""
    if catalogue.users is None:
        return {}
    profiles = catalogue.users.set_index("user_id").reindex(users)
    found: dict[str, dict[str, np.ndarray]] = {}
    for column, kind in catalogue.user_kinds.items():
        values = profiles[column]
        if kind == "number":
            numbers = values.astype(float)
            many = numbers.nunique() > GROUPS
            values = _quarters(numbers) if many else numbers.map("{:g}".format, na_action="ignore")
        if kind == "tags":
            values = values.map(lambda tags: tags[0] if isinstance(tags, list) and tags else None)
        groups = values.astype(object).where(values.notna(), None).reset_index(drop=True)
        largest = groups.value_counts()
        largest = largest[largest >= GROUP_USERS].index[:GROUPS]
        if len(largest) > 1:
            found[column] = {str(name): (groups == name).to_numpy() for name in sorted(largest, key=str)}
    return found


def _quarters(values: pd.Series) -> pd.Series:
    """Numbers -> the quarter that each falls into, named by its least and its largest value; None where unknown."""
    quarter = pd.qcut(values, 4, labels=False, duplicates="drop")
    ends = values.groupby(quarter).agg(["min", "max"])
    names = {at: f"{low:g} to {high:g}" for at, (low, high) in enumerate(ends.to_numpy())}
    return quarter.map(names).astype(object)
