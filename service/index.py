"""Vector -> nearest items: the sealed part of the index. Exact below a size, HNSW above; memory-mapped."""

from pathlib import Path

import faiss
import numpy as np

EXACT_BELOW = 20_000
# Twice the links cost a third more memory, and efConstruction 200 two fifths more time: on 100,000 items either gave
# .990 to .995 at efSearch 16, where these give .991. Neither was compared on a million.
HNSW_LINKS = 16
HNSW_CONSTRUCTION = 128
EF_SEARCH = 128  # of a release that does not record what its own measurement chose
# One step of the graph walk costs what comparing with so many items in a row costs: 160 to 300 were measured.
STEP = 150


class Index:
    """The nearest items of one release. Positions in faiss are those of the pictured items, in row order.

    The vectors are held once, as faiss stores them: float32 in an exact index, float16 under a graph."""

    def __init__(self, sealed: faiss.Index, rows: np.ndarray, *, items: int, ef_search: int = EF_SEARCH) -> None:
        """rows: (m,) the item rows that are in the index, ascending; items: how many there are with those without a
        picture; ef_search: how far the graph is searched at least (efSearch of Malkov and Yashunin 2018)."""
        self._sealed = sealed
        self._graph = isinstance(sealed, faiss.IndexHNSW)
        self._storage = faiss.downcast_index(sealed.storage) if self._graph else sealed
        codes = self._storage.codes
        self._codes = faiss.rev_swig_ptr(codes.data(), codes.size()).reshape(sealed.ntotal, -1)
        self.rows = rows
        self.ef_search = ef_search
        self._position = np.full(items, -1, np.int32)
        self._position[rows] = np.arange(len(rows))
        self.pictured = self._position >= 0

    @property
    def shape(self) -> tuple[int, int]:
        """Of the vectors: (items, dim)."""
        return len(self._position), self.sealed_dim

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
    def open(cls, path: Path, rows: np.ndarray, *, items: int, ef_search: int = EF_SEARCH) -> "Index":
        """Open index.faiss of a release: mapped, the vectors are read when a search first touches them."""
        return cls(faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC), rows, items=items, ef_search=ef_search)

    def search(
        self, queries: np.ndarray, *, k: int, allowed: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """queries: (n, dim) float32, unit length; allowed: (items,) bool -> rows: (n, k), cosines: (n, k).

        Nearest first; equal cosines in row order. Padded with -1 and NaN only where fewer than k items pass."""
        passing = None
        if allowed is not None:
            passing = allowed if len(self) == len(allowed) else allowed[self.rows]
        cosines, positions = self._nearest(queries, k, passing)
        if (cosines[:, 1:] == cosines[:, :-1]).any():  # faiss leaves equal ones in any order
            order = np.lexsort((positions, -cosines))
            positions, cosines = np.take_along_axis(positions, order, 1), np.take_along_axis(cosines, order, 1)
        missing = positions < 0
        rows = self.rows[positions]
        if missing.any():
            rows[missing], cosines[missing] = -1, np.nan
        return rows, cosines

    def recall(self, queries: np.ndarray, *, k: int) -> float:
        """The share of the k nearest of each query that a search finds: (n, dim) float32 -> 0 to 1. Looks at every
        vector."""
        _, found = self._nearest(queries, k, None)
        _, nearest = self._scan(queries, k, None)
        return float(np.mean([np.isin(a, b).mean() for a, b in zip(nearest, found, strict=True)]))

    def vectors(self, rows: np.ndarray) -> np.ndarray:
        """(m, dim) float32, NaN for items without a picture."""
        return self._filled(rows, np.nan)

    def vectors_or_zero(self, rows: np.ndarray) -> np.ndarray:
        """(m, dim) float32, zero for items without a picture."""
        return self._filled(rows, 0)

    def _filled(self, rows: np.ndarray, value: float) -> np.ndarray:
        codes = self._codes.take(self._position[rows], axis=0)
        # faiss widens float16 in two thirds of the time that numpy takes
        found: np.ndarray = self._storage.sa_decode(codes) if self._graph else codes.view(np.float32)
        if len(self) < len(self._position):
            found[~self.pictured[rows]] = value
        return found

    def _nearest(self, queries: np.ndarray, k: int, passing: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """-> cosines and positions, (n, k) each, -1 where nothing more passes."""
        size = len(self)
        count = size if passing is None else int(np.count_nonzero(passing))
        selector = None
        if passing is not None and count < size:
            bits = np.packbits(passing, bitorder="little")
            selector = faiss.IDSelectorBitmap(size, faiss.swig_ptr(bits))
        # the fewer pass, the further the graph must be searched to meet as many of them
        steps = max(self.ef_search, 2 * k) * size // max(count, 1)
        if not self._graph or count <= STEP * steps:
            return self._scan(queries, k, selector)
        parameters = faiss.SearchParametersHNSW(efSearch=steps, sel=selector)
        cosines, positions = self._sealed.search(queries, k, params=parameters)
        # what passes may lie together, far from the query: then look at all of it
        short = positions[:, -1] < 0
        if short.any():
            cosines[short], positions[short] = self._scan(queries[short], k, selector)
        return cosines, positions

    def _scan(self, queries: np.ndarray, k: int, selector: faiss.IDSelector | None) -> tuple[np.ndarray, np.ndarray]:
        parameters = None if selector is None else faiss.SearchParameters(sel=selector)
        cosines, positions = self._storage.search(queries, k, params=parameters)
        return cosines, positions


def build(vectors: np.ndarray, *, exact_below: int = EXACT_BELOW) -> faiss.Index:
    """vectors: (n, dim) float32, unit length, no NaN -> an index by inner product.

    One thread: the links of a graph depend on the order in which threads come."""
    dim = vectors.shape[1]
    if len(vectors) < exact_below:
        index = faiss.IndexFlatIP(dim)
    else:
        index = faiss.IndexHNSWSQ(dim, faiss.ScalarQuantizer.QT_fp16, HNSW_LINKS, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = HNSW_CONSTRUCTION
        index.train(vectors[:1])  # float16 has nothing to learn
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    index.add(np.ascontiguousarray(vectors))
    faiss.omp_set_num_threads(threads)
    return index
