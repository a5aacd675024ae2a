"""Answers whose items are not all alike."""

import numpy as np


def diversify(scores: np.ndarray, vectors: np.ndarray, *, k: int, diversity: float) -> np.ndarray:
    """Maximal marginal relevance (Carbonell and Goldstein, 1998).

    scores: (n,), best first; vectors: (n, d) unit length, zero where unknown -> positions: (k,) in the order chosen.
    Scores and likenesses are brought to 0..1 first, so that diversity 0.5 weighs both alike in every catalogue."""
    relevance, likeness = _to_unit_range(scores), _to_unit_range(vectors @ vectors.T)
    chosen: list[int] = []
    nearest = np.zeros(len(scores))
    left = np.ones(len(scores), dtype=bool)
    for _ in range(min(k, len(scores))):
        value = np.where(left, (1 - diversity) * relevance - diversity * nearest, -np.inf)
        best = int(np.argmax(value))
        chosen.append(best)
        left[best] = False
        nearest = np.maximum(nearest, likeness[best])
    return np.array(chosen, dtype=np.int64)


def _to_unit_range(values: np.ndarray) -> np.ndarray:
    spread = values.max() - values.min()
    return (values - values.min()) / spread if spread > 0 else np.zeros_like(values)
