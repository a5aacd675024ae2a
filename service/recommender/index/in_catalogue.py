"""Whether a photo shows something of the kind that a catalogue holds, or something foreign to it.

One cosine says too little: near every picture of a crowded corner there is something, and in a sparse one even a true
relative is far. So several signs are weighed (training/index/in_catalogue.py learns how): how near the nearest
is, the tenth, all ten, and the fiftieth, which lies in the crowd or beyond it; whether the ten are of one category; and
how near they are for where they lie, beside their own ten nearest.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from service.recommender.changes.growing import Growing

NEAREST, CROWD = 10, 50
SIGNS = ("nearest", "tenth", "all_ten", "one_category", "nearest_for_the_place", "all_ten_for_the_place", "fiftieth")


def signs(rows: np.ndarray, cosines: np.ndarray, kinds: np.ndarray | None, density: np.ndarray) -> np.ndarray:
    """(SIGNS,) float64. rows, cosines: the CROWD items nearest to a photo, nearest first, one at least; kinds: (items,)
    numbers of their categories, 0 where unknown, or None; density: (items,) as `density_of`."""
    rows, cosines, fiftieth = rows[:NEAREST], cosines[:NEAREST], cosines[:CROWD][-1]
    agree = 1.0
    if kinds is not None:
        agree = float(np.bincount(kinds[rows]).max()) / len(rows)
    place = density[rows]
    return np.array([
        cosines[0], cosines[-1], cosines.mean(), agree, cosines[0] - place[0], cosines.mean() - place.mean(),
        fiftieth,
    ], np.float64)  # fmt: skip


@dataclass(frozen=True, slots=True)
class InCatalogue:
    """weights: (SIGNS,); at: the least sum of weighed signs that is familiar; densities: (items,) float32, the mean
    cosine of each item with the ten nearest to it."""

    weights: np.ndarray
    at: float
    densities: Growing

    @classmethod
    def open(cls, path: Path, facts: Mapping[str, Any]) -> "InCatalogue":
        """Open density.npy of a release. facts: what its manifest says of `in_catalogue`."""
        weights = np.array([facts["weights"].get(name, 0.0) for name in SIGNS], np.float64)
        return cls(weights, float(facts["at"]), Growing(np.load(path, allow_pickle=False)))

    def extend_to(self, items: int) -> None:
        """So many items there are; around those that came it is as usual, until that was measured."""
        if items > len(self.densities):
            self.densities.extend_to(items, float(np.nanmean(self.densities.array)))

    def put(self, row: int, cosines: np.ndarray) -> None:
        """What lies around an item that came, or got another picture. cosines: of the NEAREST to it, without itself."""
        self.densities.array[row] = cosines.mean() if len(cosines) else 0

    def known(self, rows: np.ndarray, cosines: np.ndarray, kinds: np.ndarray | None) -> bool:
        """Whether a photo with these neighbours shows something of the catalogue's kind.

        rows, cosines: (n,), nearest first; kinds: (items,) or None."""
        return len(rows) > 0 and bool(signs(rows, cosines, kinds, self.densities.array) @ self.weights >= self.at)
