"""Rows of a table in which what belongs together lies one after another: the pictures of an item, its neighbours."""

import numpy as np


def places(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The places of several runs, one run after another. starts, lengths: (n,) -> (sum of lengths,) int64."""
    within = np.arange(int(lengths.sum())) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return np.repeat(starts, lengths) + within
