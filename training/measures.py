"""Ranking measures over many queries, with intervals. Relevance is binary."""

from collections.abc import Sequence
from statistics import NormalDist

import numpy as np

RESAMPLES = 1000
LEVEL = 0.95  # of intervals


def hits_of(ranked: np.ndarray, relevant: Sequence[np.ndarray]) -> np.ndarray:
    """ranked: (n, k) item rows, -1 where there are fewer; relevant: item rows of each query -> (n, k) bool."""
    return np.array([np.isin(row, wanted) for row, wanted in zip(ranked, relevant, strict=True)], dtype=bool).reshape(
        ranked.shape
    )


def list_measures(hits: np.ndarray, sizes: np.ndarray, k: int) -> dict[str, np.ndarray]:
    """Measures of the first k answers, each (n,). hits: (n, >= k) bool; sizes: (n,) numbers of relevant items.

    recall is hits / min(k, relevant); ndcg as Jarvelin and Kekalainen, 2002; map is average precision over
    min(k, relevant); mrr the inverse rank of the first hit."""
    top = hits[:, :k].astype(float)
    possible = np.minimum(sizes, k)
    discounts = 1 / np.log2(np.arange(2, k + 2))
    found = top.sum(axis=1)
    precision, recall = found / k, found / possible
    so_far = np.cumsum(top, axis=1) / np.arange(1, top.shape[1] + 1)
    first = np.where(found > 0, 1 / (1 + top.argmax(axis=1)), 0.0)
    return {
        f"precision_at_{k}": precision,
        f"recall_at_{k}": recall,
        f"f1_at_{k}": 2 * precision * recall / np.maximum(precision + recall, 1e-12),
        f"ndcg_at_{k}": (top * discounts[: top.shape[1]]).sum(axis=1) / np.cumsum(discounts)[possible - 1],
        f"map_at_{k}": (so_far * top).sum(axis=1) / possible,
        f"mrr_at_{k}": first,
        f"hit_rate_at_{k}": (found > 0).astype(float),
    }


def recall_curve(hits: np.ndarray, sizes: np.ndarray) -> list[float]:
    """Mean recall@1, @2, ... of all columns of `hits`, as `list_measures` defines it.

    hits: (queries, depth) bool; sizes: (queries,)."""
    depths = np.arange(1, hits.shape[1] + 1)
    return [float(r) for r in (np.cumsum(hits, axis=1) / np.minimum(sizes[:, None], depths)).mean(axis=0)]


def auc(scores: np.ndarray, relevant: np.ndarray) -> float:
    """The chance that a relevant item is scored above another, ties half. (n,), (n,) bool; NaN if either is empty."""
    positives, negatives = np.sort(scores[relevant]), np.sort(scores[~relevant])
    if not len(positives) or not len(negatives):
        return float("nan")
    below = np.searchsorted(negatives, positives, side="left")
    below_or_equal = np.searchsorted(negatives, positives, side="right")
    return float((below + below_or_equal).sum() / (2 * len(positives) * len(negatives)))


def gini(counts: np.ndarray) -> float:
    """How unevenly recommendations fall on items: 0 if all get as many, near 1 if few get all. counts: (items,)."""
    ordered = np.sort(counts.astype(float))
    if not ordered.sum():
        return 0.0
    ranks = np.arange(1, len(ordered) + 1)
    return float((2 * ranks - len(ordered) - 1) @ ordered / (len(ordered) * ordered.sum()))


def interval(values: np.ndarray, *, seed: int = 0, level: float = LEVEL) -> list[float]:
    """Bootstrap interval of the mean (Efron, 1979). values: (n,)."""
    if not len(values):
        return []
    rng = np.random.default_rng(seed)
    means = [values[rng.integers(len(values), size=len(values))].mean() for _ in range(RESAMPLES)]
    return [float(q) for q in np.quantile(means, [(1 - level) / 2, (1 + level) / 2])]


def median_interval(values: np.ndarray, *, level: float = LEVEL) -> list[float]:
    """Interval of the median by order statistics, whatever the distribution (normal approximation of the binomial).
    values: (n,), n at least 20."""
    ranked = np.sort(values)
    reach = NormalDist().inv_cdf((1 + level) / 2) * len(values) ** 0.5 / 2
    low, high = int(len(values) / 2 - reach), int(np.ceil(len(values) / 2 + reach))
    return [float(ranked[max(0, low)]), float(ranked[min(len(values) - 1, high)])]


def with_intervals(measured: dict[str, np.ndarray]) -> dict[str, object]:
    """Means, and beside each the interval. NaN values, of queries that a measure does not apply to, are left out.

    measured: (queries,) each."""
    figures: dict[str, object] = {}
    for name, values in measured.items():
        known = values[np.isfinite(values)]
        figures[name] = float(known.mean()) if len(known) else 0.0
        figures[f"{name}_interval"] = interval(known)
    return figures


def top(scores: np.ndarray, k: int) -> np.ndarray:
    """(n, items) -> (n, k) rows, best first, ties in row order; -1 where the score is -inf."""
    k = min(k, scores.shape[1])
    part = np.argpartition(-scores, k - 1, axis=1)[:, :k]
    part.sort(axis=1)
    best = np.take_along_axis(scores, part, axis=1)
    order = np.argsort(-best, axis=1, kind="stable")
    rows = np.take_along_axis(part, order, axis=1)
    return np.where(np.isfinite(np.take_along_axis(best, order, axis=1)), rows, -1)
