"""Vector -> nearest items: the sealed part of the index. Exact below a size, HNSW above; memory-mapped."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import faiss
import numpy as np

from service.recommender.agreement import overlaps
from service.recommender.changes.growing import Growing
from service.recommender.index.grouped_rows import each_once, places
from service.recommender.index.live_pictures import LivePictures

EXACT_BELOW = 20_000
# Twice the links cost a third more memory, and efConstruction 200 two fifths more time: on 100,000 items either gave
# .990 to .995 at efSearch 16, where these give .991. Neither was compared on a million.
HNSW_LINKS = 16
HNSW_CONSTRUCTION = 128
EF_SEARCH = 128  # of a release that does not record what its own measurement chose
# One step of the graph walk costs what comparing with so many items in a row costs: 160 to 300 were measured.
STEP = 150


class Index:
    """The nearest items of one release. Positions in faiss are those of the pictures, in the order of the items' rows;
    of an item with several the first stands for it, and each is searched.

    The vectors are held once, as faiss stores them: float32 in an exact index, float16 under a graph."""

    def __init__(self, sealed: faiss.Index, rows: np.ndarray, *, items: int, ef_search: int = EF_SEARCH) -> None:
        """rows: (m,) the item row of each picture, ascending; items: how many there are with those without a
        picture; ef_search: how far the graph is searched at least (efSearch of Malkov and Yashunin 2018)."""
        self._sealed = sealed
        self._graph = isinstance(sealed, faiss.IndexHNSW)
        self._storage = faiss.downcast_index(sealed.storage) if self._graph else sealed
        codes = self._storage.codes
        self._codes = faiss.rev_swig_ptr(codes.data(), codes.size()).reshape(sealed.ntotal, -1)
        self.rows = rows
        self.ef_search = ef_search
        counts = np.bincount(rows, minlength=items)
        self._position = np.where(counts > 0, np.cumsum(counts) - counts, -1).astype(np.int32)
        self._counts = counts
        self._most = int(counts.max(initial=1))  # pictures of one item
        self._pictured = Growing(counts > 0)
        self._gaps = not self.pictured.all()
        self._live: LivePictures | None = None  # of items that came since, or have other pictures
        self._valid: np.ndarray | None = None  # (sealed items,) bool, once one has other pictures

    @property
    def shape(self) -> tuple[int, int]:
        """Of the vectors: (items, dim)."""
        return len(self._pictured), self.sealed_dim

    @property
    def pictured(self) -> np.ndarray:
        """(items,) bool: which have a picture."""
        return self._pictured.array

    @property
    def most(self) -> int:
        """Pictures of one item at most."""
        return self._most if self._live is None else max(self._most, self._live.most)

    @property
    def live(self) -> int:
        """How many pictures came since the release."""
        return 0 if self._live is None else len(self._live)

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

    def pictures(self, row: int) -> range:
        """The positions of an item's pictures."""
        first = int(self._position[row])
        return range(first, first + int(self._counts[row]))

    @classmethod
    def open(cls, path: Path, rows: np.ndarray, *, items: int, ef_search: int = EF_SEARCH) -> "Index":
        """Open index.faiss of a release: mapped, the vectors are read when a search first touches them."""
        return cls(faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC), rows, items=items, ef_search=ef_search)

    def search(
        self, queries: np.ndarray, *, k: int, allowed: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """queries: (n, dim) float32, unit length; allowed: (items,) bool -> rows: (n, k), cosines: (n, k).

        Nearest first, each item by the nearest of its pictures; equal cosines in row order. Padded with -1 and NaN
        only where fewer than k items pass."""
        if self._live is None:
            return self._search_sealed(queries, k, allowed)
        of_sealed = None if allowed is None else allowed[: len(self._position)]
        if self._valid is not None:
            of_sealed = self._valid if of_sealed is None else of_sealed & self._valid
        parts = [self._search_sealed(queries, k, of_sealed), self._live.search(queries, k=k, allowed=allowed)]
        rows, cosines = (np.concatenate(each, axis=1) for each in zip(*parts, strict=True))
        order = np.lexsort((rows, -np.where(rows < 0, -np.inf, cosines)))[:, :k]
        return np.take_along_axis(rows, order, 1), np.take_along_axis(cosines, order, 1)

    def put(self, row: int, vectors: np.ndarray) -> None:
        """Give an item these pictures in place of those that it has; a new item's row is the next one, or later.

        vectors: (n, dim) float32, unit length; none: it has no picture any more."""
        if self._live is None:
            self._live = LivePictures(self.sealed_dim, len(self._position))
        self._pictured.extend_to(row + 1, False)
        if row < len(self._position) and self._counts[row]:
            self._valid = np.ones(len(self._position), bool) if self._valid is None else self._valid
            self._valid[row] = False
        self._live.put(row, vectors)
        self._pictured.array[row] = len(vectors) > 0
        self._gaps = True  # which costs next to nothing

    def is_replaced(self, row: int) -> bool:
        """Whether an item of the release has other pictures than there, or none any more."""
        return self._valid is not None and row < len(self._valid) and not self._valid[row]

    def restore(self, row: int) -> None:
        """Give an item of the release its own pictures back."""
        if self._live is not None:
            self._live.put(row, np.empty((0, self.sealed_dim), np.float32))
        if self._valid is not None:
            self._valid[row] = True
        self._pictured.array[row] = bool(self._counts[row])

    def _search_sealed(self, queries: np.ndarray, k: int, allowed: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        passing = None
        if allowed is not None:
            passing = allowed if self._most == 1 and len(self) == len(allowed) else allowed[self.rows]
        wanted, most = (k if self._most == 1 else 2 * k + self._most), max(k, len(self))
        while True:
            positions, cosines = self.search_pictures(queries, k=wanted, passing=passing)
            rows = np.where(positions < 0, -1, self.rows[positions])
            if self._most == 1:
                return rows, cosines
            rows, cosines = each_once(rows, cosines)
            # what more of the pictures are of items that are there already, or there are no more
            if wanted >= most or (rows[:, k - 1] >= 0).all():
                return rows[:, :k], cosines[:, :k]
            wanted = min(2 * wanted, most)

    def search_pictures(
        self, queries: np.ndarray, *, k: int, passing: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """The nearest pictures, as `search` gives items. passing: (pictures,) bool -> positions (n, k), cosines."""
        cosines, positions = self._nearest(queries, k, passing)
        if (cosines[:, 1:] == cosines[:, :-1]).any():  # faiss leaves equal ones in any order
            order = np.lexsort((positions, -cosines))
            positions, cosines = np.take_along_axis(positions, order, 1), np.take_along_axis(cosines, order, 1)
        missing = positions < 0
        if missing.any():
            cosines[missing] = np.nan
        return positions, cosines

    def cosines(self, queries: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """queries: (n, dim) unit length; rows: (m,) -> (n, m) float32, with the nearest of each item's pictures, 0 for
        an item without."""
        if self.most == 1:
            alone: np.ndarray = queries @ self.vectors_or_zero(rows).T
            return alone
        there = self.pictured[rows]
        if self._live is not None:
            changed = self._live.holds(rows)
            there = there & ~changed
        counts = self._counts[rows[there]]
        of_pictures = queries @ self.at(places(self._position[rows[there]], counts)).T
        found = np.zeros((len(queries), len(rows)), np.float32)
        if there.any():
            found[:, there] = np.maximum.reduceat(of_pictures, np.cumsum(counts) - counts, axis=1)
        if self._live is not None and changed.any():
            found[:, changed] = self._live.cosines(queries, rows[changed])
        return found

    def at(self, positions: np.ndarray) -> np.ndarray:
        """The vectors of pictures by their positions: (m,) -> (m, dim) float32."""
        codes = self._codes.take(positions, axis=0)
        # faiss widens float16 in two thirds of the time that numpy takes
        found: np.ndarray = self._storage.sa_decode(codes) if self._graph else codes.view(np.float32)
        return found

    def recall(self, queries: np.ndarray, *, k: int) -> float:
        """The share of the k nearest of each query that a search finds: (n, dim) float32 -> 0 to 1. Looks at every
        vector."""
        _, found = self._nearest(queries, k, None)
        _, nearest = self._scan(queries, k, None)
        return float(overlaps(nearest.tolist(), found.tolist()).mean())

    def vectors(self, rows: np.ndarray) -> np.ndarray:
        """(m, dim) float32, NaN for items without a picture."""
        return self._filled(rows, np.nan)

    def vectors_or_zero(self, rows: np.ndarray) -> np.ndarray:
        """(m, dim) float32, zero for items without a picture."""
        return self._filled(rows, 0)

    def _filled(self, rows: np.ndarray, value: float) -> np.ndarray:
        if self._live is None:
            found = self.at(self._position[rows])
        else:
            found = self.at(self._position[np.minimum(rows, len(self._position) - 1)])
            changed = self._live.holds(rows)
            found[changed] = self._live.first(rows[changed])
        if self._gaps:
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
    with one_thread():
        index.add(np.ascontiguousarray(vectors))
    return index


@contextmanager
def one_thread() -> Iterator[None]:
    """What faiss does in the block it does in this thread alone."""
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(threads)
