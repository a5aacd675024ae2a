"""Vectors as encoders give them: clustered, of a lower dimension than they have numbers, unit length."""

import numpy as np

CENTRES, INNER, SPREAD, NOISE = 2000, 32, 0.8, 0.2
CHUNK = 100_000


def draw(items: int, queries: int, *, dim: int = 128, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(items, dim) and (queries, dim) float32 of one mixture; no query is an item.

    2,000 centres in 32 dimensions; around each a cloud of 0.8 of the centres' own spread, so that clusters touch;
    carried into `dim` dimensions by a random linear map, with noise of 0.2 on top."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((CENTRES, INNER), dtype=np.float32)
    carry = rng.standard_normal((INNER, dim), dtype=np.float32) / np.float32(np.sqrt(INNER))

    def some(count: int) -> np.ndarray:
        inner = centres[rng.integers(CENTRES, size=count)]
        inner += np.float32(SPREAD) * rng.standard_normal(inner.shape, dtype=np.float32)
        vectors = inner @ carry
        vectors += np.float32(NOISE) * rng.standard_normal(vectors.shape, dtype=np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors

    asked = some(queries)
    return np.concatenate([some(min(CHUNK, items - start)) for start in range(0, items, CHUNK)]), asked
