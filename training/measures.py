"""Ranking measures over many queries, with intervals."""

from collections.abc import Sequence

import numpy as np

RESAMPLES = 1000


def recall_at(ranked: np.ndarray, relevant: Sequence[np.ndarray], k: int) -> np.ndarray:
    """ranked: (n, >= k) item rows, -1 where there are fewer -> (n,): hits / min(k, number of relevant items)."""
    return np.array([
        np.isin(row[:k], wanted).sum() / min(k, len(wanted)) for row, wanted in zip(ranked, relevant, strict=True)
    ])  # fmt: skip


def ndcg_at(ranked: np.ndarray, relevant: Sequence[np.ndarray], k: int) -> np.ndarray:
    """Normalised discounted cumulative gain with binary relevance (Jarvelin and Kekalainen, 2002) -> (n,)."""
    discounts = 1 / np.log2(np.arange(2, k + 2))
    ideal = np.cumsum(discounts)
    return np.array([
        (np.isin(row[:k], wanted) * discounts[: len(row[:k])]).sum() / ideal[min(k, len(wanted)) - 1]
        for row, wanted in zip(ranked, relevant, strict=True)
    ])  # fmt: skip


def interval(values: np.ndarray, *, seed: int = 0) -> list[float]:
    """95 % bootstrap interval of the mean (Efron, 1979)."""
    if not len(values):
        return []
    rng = np.random.default_rng(seed)
    means = [values[rng.integers(len(values), size=len(values))].mean() for _ in range(RESAMPLES)]
    return [float(q) for q in np.quantile(means, [0.025, 0.975])]


def top(scores: np.ndarray, k: int) -> np.ndarray:
    """(n, items) -> (n, k) rows, best first, ties in row order; -1 where the score is -inf."""
    k = min(k, scores.shape[1])
    part = np.argpartition(-scores, k - 1, axis=1)[:, :k]
    part.sort(axis=1)
    best = np.take_along_axis(scores, part, axis=1)
    order = np.argsort(-best, axis=1, kind="stable")
    rows = np.take_along_axis(part, order, axis=1)
    return np.where(np.isfinite(np.take_along_axis(best, order, axis=1)), rows, -1)
