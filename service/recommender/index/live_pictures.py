"""The pictures that came since the release was made, beside the sealed part of the index. Each is looked at."""

from collections.abc import Sequence

import numpy as np

from service.recommender.changes.growing import Growing
from service.recommender.index.grouped_rows import each_once

LEAST_COMPACTED = 256  # places that nobody uses any more, below which they are left alone


class LivePictures:
    """Vectors of pictures, in the order in which they came; those of one item lie one after another."""

    def __init__(self, dim: int, items: int) -> None:
        """items: rows that there are already."""
        self._first = Growing(np.full(items, -1))  # of each item, the place of its first picture
        self._begin(dim)

    def _begin(self, dim: int) -> None:
        self._vectors = Growing(np.empty((0, dim), np.float32))
        self._rows = Growing(np.empty(0, np.int64))
        self._there = Growing(np.empty(0, bool))
        self._places: dict[int, range] = {}  # item row -> places
        self.most = 1  # pictures of one item

    def __len__(self) -> int:
        return sum(map(len, self._places.values()))

    def put(self, row: int, vectors: np.ndarray) -> None:
        """Give an item these pictures, (n, dim), in place of those that it has here."""
        self._first.extend_to(row + 1, -1)
        if (before := self._places.pop(row, None)) is not None:
            self._there.array[before.start : before.stop] = False
        self._first.array[row] = len(self._rows) if len(vectors) else -1
        if len(vectors):
            self._places[row] = range(len(self._rows), len(self._rows) + len(vectors))
            self._vectors.append(vectors)
            self._rows.append(np.full(len(vectors), row))
            self._there.append(np.ones(len(vectors), bool))
            self.most = max(self.most, len(vectors))
        unused = len(self._rows) - len(self)
        if unused > max(LEAST_COMPACTED, len(self)):
            self._compact()

    def holds(self, rows: np.ndarray) -> np.ndarray:
        """(n,) bool: which of these items have a picture here."""
        held: np.ndarray = self._first.array[rows] >= 0
        return held

    def first(self, rows: np.ndarray) -> np.ndarray:
        """The vector of each item's first picture, all of them here: (n,) -> (n, dim) float32."""
        found: np.ndarray = self._vectors.array[self._first.array[rows]]
        return found

    def cosines(self, queries: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """With the nearest of each item's pictures: (n, dim), (m,) -> (n, m) float32."""
        found = np.empty((len(queries), len(rows)), np.float32)
        for at, row in enumerate(rows.tolist()):
            place = self._places[row]
            found[:, at] = (queries @ self._vectors.array[place.start : place.stop].T).max(axis=1)
        return found

    def search(self, queries: np.ndarray, *, k: int, allowed: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """As `Index.search`, but without padding: -> rows, cosines (n, at most k), nearest first, -1 and NaN where no
        more pass.

        allowed: (items,) bool."""
        passing = self._there.array if allowed is None else self._there.array & allowed[self._rows.array]
        at = None if passing.all() else np.flatnonzero(passing)
        vectors, rows = self._vectors.array, self._rows.array
        cosines = queries @ (vectors if at is None or 2 * len(at) > len(rows) else vectors[at]).T
        if at is not None:
            if 2 * len(at) > len(rows):
                cosines[:, ~passing] = -np.inf
            else:
                rows = rows[at]
        best = self._best(cosines, min(k * self.most, cosines.shape[1]))
        near = np.take_along_axis(cosines, best, 1)
        found = np.where(np.isneginf(near), -1, rows[best])
        near = np.where(found < 0, np.nan, near).astype(np.float32)
        if self.most > 1:
            found, near = each_once(found, near)
        return found[:, :k], near[:, :k]

    def _best(self, cosines: np.ndarray, k: int) -> np.ndarray:
        """Places of the k largest of each line, largest first, equal ones in their order."""
        if k < cosines.shape[1]:
            likely = np.sort(np.argpartition(-cosines, k - 1, axis=1)[:, :k], axis=1)
        else:
            likely = np.broadcast_to(np.arange(cosines.shape[1]), cosines.shape)
        order = np.argsort(-np.take_along_axis(cosines, likely, 1), axis=1, kind="stable")
        best: np.ndarray = np.take_along_axis(likely, order, 1)
        return best

    def _compact(self) -> None:
        """Move what is used together."""
        kept: Sequence[tuple[int, np.ndarray]] = [
            (row, self._vectors.array[place.start : place.stop].copy()) for row, place in self._places.items()
        ]
        self._begin(self._vectors.array.shape[1])
        for row, vectors in kept:
            self.put(row, vectors)
