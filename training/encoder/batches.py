"""Which items a training batch holds: rare classes more often, and pairs that the same people touched."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy.sparse

from training.data.catalogue import Catalogue
from training.data.pictures import Pictures

MAX_LABEL_VALUES = 200
NEIGHBOURS = 20


@dataclass(frozen=True, slots=True)
class Labels:
    """codes: (n, columns) int64, -1 where unknown; names: the values of each column."""

    columns: list[str]
    names: list[list[str]]
    codes: np.ndarray

    @property
    def sizes(self) -> list[int]:
        return [len(names) for names in self.names]


@dataclass(frozen=True, slots=True)
class Examples:
    """What there is to learn from. train, validation: positions in pictures; labels: by position;
    neighbours: (n, m) co-touched positions, or None where nobody's interactions are known."""

    pictures: Pictures
    labels: Labels
    train: np.ndarray
    validation: np.ndarray
    neighbours: np.ndarray | None


def labels_of(catalogue: Catalogue, rows: np.ndarray, *, exclude: set[str]) -> Labels:
    """The category, then every attribute with few enough values to learn; of several tags the first. rows: (n,)."""
    columns, names, codes = [], [], []
    for column, kind in catalogue.kinds.items():
        if column in exclude or kind not in ("category", "tags"):
            continue
        values = catalogue.items[column].iloc[rows]
        first = [(v[0] if v else None) if isinstance(v, list) else v for v in values]
        column_codes, found = pd.factorize(pd.Series(first, dtype=object), sort=True)
        few_enough = 2 <= len(found) <= min(MAX_LABEL_VALUES, len(rows) // 4)
        if few_enough:
            columns.append(column)
            names.append([str(name) for name in found])
            codes.append(column_codes)
    stacked = np.stack(codes, axis=1) if codes else np.empty((len(rows), 0))
    return Labels(columns, names, stacked.astype(np.int64))


def co_touched(pairs: scipy.sparse.csr_matrix, rows: np.ndarray) -> np.ndarray:
    """For each of `rows`, the positions in `rows` of the items that most of the same people touched.

    pairs: users x items, binary. -> (n, NEIGHBOURS) int64, -1 where there are fewer. Likeness is the cosine of the
    columns; a pair needs two people in common, since one user's trip is no sign of likeness.
    rows: (n,) -> (n, NEIGHBOURS), -1 where there are fewer."""
    chosen = pairs[:, rows].tocsc().astype(np.float32)
    norms = np.sqrt(np.asarray(chosen.sum(axis=0)).ravel()) + 1e-9
    neighbours = np.full((len(rows), NEIGHBOURS), -1, dtype=np.int64)
    for start in range(0, len(rows), 1024):
        block = (chosen[:, start : start + 1024].T @ chosen).toarray()
        block[np.arange(len(block)), start + np.arange(len(block))] = 0
        cosine = np.where(block >= 2, block / norms[start : start + len(block), None] / norms, 0)
        width = min(NEIGHBOURS, len(rows))
        best = np.argsort(-cosine, axis=1, kind="stable")[:, :width]
        strength = np.take_along_axis(cosine, best, axis=1)
        neighbours[start : start + len(block), :width] = np.where(strength > 0, best, -1)
    return neighbours


def keep(neighbours: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Only neighbours among `positions`, moved to the front of each row: held-out pictures must not teach.

    neighbours: (n, m); positions: (k,) -> (n, m)."""
    kept = np.where(np.isin(neighbours, positions), neighbours, -1)
    order = np.argsort(kept < 0, axis=1, kind="stable")
    return np.take_along_axis(kept, order, axis=1)


def class_weights(classes: np.ndarray) -> np.ndarray:
    """The chance of each to be drawn: that of a class of c items is in proportion to sqrt(c). -> (n,), sum 1."""
    counts = np.bincount(classes + 1)
    weights = 1 / np.sqrt(counts[classes + 1])
    shares: np.ndarray = weights / weights.sum()
    return shares


def epoch_order(classes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Positions for one epoch, as many as there are items, by `class_weights`: rare ones come up more often.
    Drawing is systematic, so none is left out by bad luck. classes: (n,) -> (n,) positions."""
    weights = class_weights(classes)
    points = (np.arange(len(classes)) + rng.random()) / len(classes)
    shuffle = rng.permutation(len(classes))
    edges = np.cumsum(weights[shuffle])
    order = shuffle[np.minimum(np.searchsorted(edges, points), len(classes) - 1)]
    return rng.permutation(order)


def partners(anchors: np.ndarray, neighbours: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """For each anchor a co-touched item, or itself (another view of it) where it has none."""
    known = (neighbours[anchors] >= 0).sum(axis=1)
    choice = (rng.random(len(anchors)) * np.maximum(known, 1)).astype(np.int64)
    found = neighbours[anchors, choice]
    return np.where(known > 0, found, anchors)


def positives(batch: np.ndarray, neighbours: np.ndarray) -> np.ndarray:
    """(n, n) bool: which of the batch are the same item, or co-touched in either direction."""
    near = (neighbours[batch][:, :, None] == batch[None, None, :]).any(axis=1)
    return near | near.T | (batch[:, None] == batch[None, :])
