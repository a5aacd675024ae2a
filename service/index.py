"""Vector -> nearest items: the sealed part of the index. Exact below a size, HNSW above."""

from pathlib import Path

import faiss
import numpy as np

EXACT_BELOW = 20_000
HNSW_LINKS = 32
HNSW_CONSTRUCTION = 128
HNSW_SEARCH = 128
# Where fewer items pass a filter, comparing with each of them beats walking a graph of mostly forbidden ones.
SCAN_BELOW = 10_000


class Index:
    """The nearest items of one release. Positions in faiss are those of the pictured items, in row order."""

    def __init__(self, sealed: faiss.Index, vectors: np.ndarray, rows: np.ndarray) -> None:
        """vectors: (items, dim) float32, NaN without a picture; rows: (m,) the item rows that are in the index."""
        self._sealed = sealed
        self._vectors = np.asarray(vectors)  # a plain view: indexing a memmap object costs more than the reading
        self.rows = rows
        self.pictured = np.zeros(len(vectors), bool)
        self.pictured[rows] = True

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the vectors: (items, dim)."""
        return tuple(self._vectors.shape)

    @property
    def sealed_size(self) -> int:
        """How many vectors faiss holds."""
        return int(self._sealed.ntotal)

    @property
    def sealed_dim(self) -> int:
        """Of what dimension."""
        return int(self._sealed.d)

    def __len__(self) -> int:
        return len(self.rows)

    @classmethod
    def open(cls, path: Path, vectors: np.ndarray, rows: np.ndarray) -> "Index":
        """Open index.faiss of a release."""
        return cls(faiss.read_index(str(path)), vectors, rows)

    def search(
        self, queries: np.ndarray, *, k: int, allowed: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """queries: (n, dim) float32, unit length; allowed: (items,) bool -> rows: (n, k), cosines: (n, k).

        Nearest first; equal cosines in row order. Padded with -1 and NaN only where fewer than k items pass."""
        positions = self._positions(queries, k, allowed)
        rows = np.full(positions.shape, -1, dtype=np.int64)
        found = positions >= 0
        rows[found] = self.rows[positions[found]]
        return self._by_exact_cosine(queries, rows)

    def vectors(self, rows: np.ndarray) -> np.ndarray:
        """(m, dim) float32, NaN for items without a picture."""
        return np.asarray(self._vectors[rows])

    def vectors_or_zero(self, rows: np.ndarray) -> np.ndarray:
        """(m, dim) float32, zero for items without a picture."""
        found: np.ndarray = self._vectors[rows]
        if len(self.rows) < len(self._vectors):
            found[np.isnan(found[:, 0])] = 0
        return found

    def _positions(self, queries: np.ndarray, k: int, allowed: np.ndarray | None) -> np.ndarray:
        if allowed is None:
            return self._search_sealed(queries, k, None)
        passing = allowed[self.rows]
        count = int(passing.sum())
        if count <= max(SCAN_BELOW, k):
            return self._scan(queries, k, np.flatnonzero(passing))
        positions = self._search_sealed(queries, k, passing)
        # the graph around a query may hold too few that pass: then look at all of them
        short = (positions < 0).any(axis=1)
        if short.any():
            positions[short] = self._scan(queries[short], k, np.flatnonzero(passing))
        return positions

    def _search_sealed(self, queries: np.ndarray, k: int, passing: np.ndarray | None) -> np.ndarray:
        parameters = None
        selector = None
        if passing is not None:
            bits = np.packbits(passing, bitorder="little")
            selector = faiss.IDSelectorBitmap(len(passing), faiss.swig_ptr(bits))
        if isinstance(self._sealed, faiss.IndexHNSW):
            parameters = faiss.SearchParametersHNSW(efSearch=max(HNSW_SEARCH, 2 * k), sel=selector)
        elif selector is not None:
            parameters = faiss.SearchParameters(sel=selector)
        wanted = min(k, len(self))
        if not wanted:
            return np.full((len(queries), k), -1, dtype=np.int64)
        _, positions = self._sealed.search(np.ascontiguousarray(queries), wanted, params=parameters)
        return np.pad(positions, ((0, 0), (0, k - wanted)), constant_values=-1)

    def _scan(self, queries: np.ndarray, k: int, candidates: np.ndarray) -> np.ndarray:
        cosines = queries @ self._vectors[self.rows[candidates]].T
        wanted = min(k, len(candidates))
        best = np.argsort(-cosines, axis=1, kind="stable")[:, :wanted]
        return np.pad(candidates[best], ((0, 0), (0, k - wanted)), constant_values=-1)

    def _by_exact_cosine(self, queries: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        # exact cosines: distances over fp16 would reorder near ties, and differ between index types
        cosines = np.einsum("nd,nkd->nk", queries, self._vectors[rows])
        cosines = np.where(rows >= 0, cosines, np.nan).astype(np.float32)
        order = np.lexsort((rows, -np.nan_to_num(cosines, nan=-np.inf)))
        return np.take_along_axis(rows, order, axis=1), np.take_along_axis(cosines, order, axis=1)


def build(vectors: np.ndarray, *, exact_below: int = EXACT_BELOW) -> faiss.Index:
    """vectors: (n, dim) float32, unit length, no NaN -> an index by inner product."""
    dim = vectors.shape[1]
    if len(vectors) < exact_below:
        index = faiss.IndexFlatIP(dim)
    else:
        index = faiss.IndexHNSWSQ(dim, faiss.ScalarQuantizer.QT_fp16, HNSW_LINKS, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = HNSW_CONSTRUCTION
        index.train(vectors[:100_000])
    index.add(np.ascontiguousarray(vectors))
    return index
