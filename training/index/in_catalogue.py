"""Learn which signs tell a photo of something of the catalogue's kind from one of something foreign to it.

Known are photos of its items, each as if that item were not there, and the catalogue's own pictures likewise. Foreign
are photos of one category asked of all others, pictures drawn, shuffled, and mixed of two.
"""

from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression

from service.recommender.index.in_catalogue import CROWD, NEAREST, SIGNS, signs
from service.recommender.index.vector_index import Index
from training.progress import say, track

REFUSED = 0.03  # of known photos, which are harsher than those that a user takes
OWN = 1000  # of the catalogue's own pictures


def density_of(index: Index) -> np.ndarray:
    """The mean cosine of each item with the ten nearest to it: (items,) float32, 0 without a picture."""
    found = np.zeros(index.shape[0], np.float32)
    rows = np.flatnonzero(index.pictured)
    for start in track(range(0, len(rows), 256), "measuring how close items lie"):
        part = rows[start : start + 256]
        near, cosines = index.search(index.vectors(part), k=NEAREST + 1)
        others = np.where((near != part[:, None]) & (near >= 0), cosines, np.nan)
        counts = np.maximum((~np.isnan(others)).sum(axis=1), 1)
        found[part] = np.nansum(others, axis=1) / counts
    return found


def fit(
    index: Index, kinds: np.ndarray, density: np.ndarray, rows: np.ndarray, views: np.ndarray, foreign: np.ndarray
) -> dict[str, Any]:
    """What the manifest says of `in_catalogue`. rows, views: the items that photos show, and their vectors, (m, dim);
    foreign: (n, dim) vectors of pictures of nothing in the catalogue; kinds: (items,) numbers of categories, 0 where
    unknown."""
    pictured = np.flatnonzero(index.pictured)
    own = pictured[:: 1 + len(pictured) // OWN]
    asked = [(row, vector) for row, vector in zip(rows.tolist(), views, strict=True)]
    asked += [(row, vector) for row, vector in zip(own.tolist(), index.vectors(own), strict=True)]

    def sign(vector: np.ndarray, allowed: np.ndarray | None) -> np.ndarray | None:
        near, cosines = index.search(vector[None], k=CROWD, allowed=allowed)
        there = near[0] >= 0
        return signs(near[0][there], cosines[0][there], kinds, density) if there.any() else None

    known, elsewhere = [], []
    for row, vector in track(asked, "telling what is foreign"):
        others = np.ones(len(kinds), bool)
        others[row] = False
        known.append(sign(vector, others))
        if kinds[row] and (kinds[pictured] != kinds[row]).any():
            elsewhere.append(sign(vector, kinds != kinds[row]))
    strange = [sign(vector, None) for vector in foreign]
    parts = [np.array([each for each in part if each is not None]).reshape(-1, len(SIGNS))
             for part in (known, elsewhere, strange)]  # fmt: skip
    return _fitted(*parts)


def _fitted(known: np.ndarray, elsewhere: np.ndarray, strange: np.ndarray) -> dict[str, Any]:
    foreign = np.concatenate([elsewhere, strange])
    weights = np.zeros(len(SIGNS))
    weights[0] = 1.0
    if len(known) and len(foreign):
        every = np.concatenate([known, foreign])
        spread = np.where(every.std(axis=0) > 1e-9, every.std(axis=0), np.inf)
        is_known = np.arange(len(every)) < len(known)
        learned = LogisticRegression(max_iter=1000, class_weight="balanced").fit(
            (every - every.mean(axis=0)) / spread, is_known
        )
        weights = learned.coef_[0] / spread
    at = float(np.quantile(known @ weights, REFUSED)) if len(known) else -np.inf

    def refused(part: np.ndarray) -> float | None:
        return float((part @ weights < at).mean()) if len(part) else None

    found = {"accepted": 1 - (refused(known) or 0.0), "other_categories_refused": refused(elsewhere)}
    if len(elsewhere):
        say(f"index: {100 * (refused(elsewhere) or 0):.0f} % of photos of a category that is not there are refused")
    return {
        "weights": {name: float(weight) for name, weight in zip(SIGNS, weights, strict=True)},
        "at": at if np.isfinite(at) else -1e9, "strangers_refused": refused(strange) or 0.0, **found,
    }  # fmt: skip
