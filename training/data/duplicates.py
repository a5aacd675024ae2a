"""Items under other ids whose pictures are nearly the same: the same file again, smaller, brighter, or cut a little.

Pictures whose coarse colours lie alike are held against each other by their landmarks, as a photo is against an item.
"""

from collections.abc import Callable
from functools import cache

import cv2
import numpy as np
import scipy.sparse
from scipy.sparse.csgraph import connected_components

from service.recommender.index.landmarks import Landmarks, agreement
from service.recommender.index.vector_index import build

COARSE = 16  # side to which pictures are reduced
NEAREST = 8  # pictures that each is held against
ALIKE = 0.75  # cosine of the coarse colours
AGREE = 0.25  # share of the landmarks that lie alike
FEWEST = 30  # landmarks, below which colours alone decide
EQUAL = 0.999  # cosine from which they do


def coarse(pixels: np.ndarray) -> np.ndarray:
    """A picture in a few numbers: (side, side, 3) uint8 -> (COARSE * COARSE * 3,) uint8."""
    small: np.ndarray = cv2.resize(pixels, (COARSE, COARSE), interpolation=cv2.INTER_AREA).ravel()
    return small


def find(colours: np.ndarray, landmarks: Callable[[int], Landmarks], *, before: np.ndarray | None = None) -> np.ndarray:
    """The pictures that are nearly the same have the same number, from 1 on, in the order of their first; 0 has no
    other: (n,) int32.

    colours: (n, d) of `coarse`; landmarks: gives those of one picture; before: (n,) what was found earlier, -1 for a
    picture that was not there; or None."""
    n = len(colours)
    if n < 2:
        return np.zeros(n, np.int32)
    unit = _unit(colours)
    cosines, near = build(unit).search(unit, min(NEAREST + 1, n))
    known = cache(landmarks)

    def are_same(one: int, other: int, cosine: float) -> bool:
        if before is not None and before[one] >= 0 and before[other] >= 0:
            return bool(before[one] == before[other] > 0)
        return _same(known(one), known(other), cosine)

    pairs = [
        (at, int(other))
        for at in range(n)
        for other, cosine in zip(near[at], cosines[at], strict=True)
        if at < other and cosine >= ALIKE and are_same(at, int(other), float(cosine))
    ]
    ones, others = np.array(pairs, np.int64).reshape(-1, 2).T
    graph = scipy.sparse.csr_matrix((np.ones(len(pairs)), (ones, others)), shape=(n, n))
    _, part = connected_components(graph, directed=False)
    several = np.bincount(part)[part] > 1
    numbers = np.zeros(n, np.int32)
    numbers[several] = np.unique(part[several], return_inverse=True)[1] + 1
    return numbers


def _unit(colours: np.ndarray) -> np.ndarray:
    """(n, d) uint8 -> float32, mean 0, length 1 unless a picture is of one colour."""
    centred = colours.astype(np.float32)
    centred -= centred.mean(axis=1, keepdims=True)
    unit: np.ndarray = centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1.0)
    return unit


def _same(one: Landmarks, other: Landmarks, cosine: float) -> bool:
    fewest = min(len(one.points), len(other.points))
    if fewest < FEWEST:
        return cosine >= EQUAL
    return agreement(one, other) >= AGREE * fewest
