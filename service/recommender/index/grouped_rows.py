"""Rows of a table in which what belongs together lies one after another: the pictures of an item, its neighbours."""

import numpy as np


def places(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The places of several runs, one run after another. starts, lengths: (n,) -> (sum of lengths,) int64."""
    within = np.arange(int(lengths.sum())) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return np.repeat(starts, lengths) + within


def each_once(rows: np.ndarray, cosines: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(n, k) each, nearest first, an item for each of its pictures -> the same with the first of each, then -1, NaN."""
    found, near = np.full(rows.shape, -1, rows.dtype), np.full(cosines.shape, np.nan, np.float32)
    for at, line in enumerate(rows):
        first = np.sort(np.unique(line, return_index=True)[1])
        first = first[line[first] >= 0]
        found[at, : len(first)], near[at, : len(first)] = line[first], cosines[at, first]
    return found, near
