"""How much more each item is touched of late than over the whole log, continued from where a release left it.

    trend = log((late x touches / sum of late + smoothing) / (ever + smoothing))

late: touches, each weighing half for every half-life of its age; ever: all of them (training/ranker/fitting.py). What
counts is how the weights compare, so a later touch may weigh more in place of every earlier one less.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from service.recommender.changes.growing import Growing

DAY = 86_400.0
MOST_HALVINGS = 200.0  # after which a touch would weigh more than a float can hold beside the others


class ContinuedTrend:
    """The touches of each item."""

    def __init__(self, late: np.ndarray, ever: np.ndarray, *, half_life: float, smoothing: float, at: float) -> None:
        """late, ever: (items,) float64, as they were at the time `at`, in seconds; half_life: days."""
        self._late, self._ever = Growing(late), Growing(ever)
        self._half_life, self._smoothing, self._at = half_life * DAY, smoothing, at
        self._sum_late, self._touches = float(late.sum()), float(ever.sum())

    @classmethod
    def open(cls, folder: Path, facts: Mapping[str, Any] | None) -> "ContinuedTrend | None":
        """Open trend_late.npy and trend_ever.npy of ranker/; None where a release has none.

        facts: what its manifest says of the trend."""
        path = folder / "trend_late.npy"
        if facts is None or not path.exists():
            return None
        late, ever = (np.load(folder / f"trend_{name}.npy", allow_pickle=False) for name in ("late", "ever"))
        return cls(late, ever, half_life=facts["half_life"], smoothing=facts["smoothing"], at=facts["at"])

    def touch(self, row: int, when: float) -> None:
        """An item is touched. when: seconds."""
        weight = 2.0 ** min((when - self._at) / self._half_life, MOST_HALVINGS)
        self._late.array[row] += weight
        self._ever.array[row] += 1
        self._sum_late += weight
        self._touches += 1

    def values(self, rows: np.ndarray | slice) -> np.ndarray:
        """(n,) float32: the trend of these items, of those that there are."""
        scaled = self._late.array[rows] * (self._touches / max(self._sum_late, 1e-9))
        found: np.ndarray = np.log((scaled + self._smoothing) / (self._ever.array[rows] + self._smoothing))
        return found.astype(np.float32)

    def extend_to(self, items: int) -> None:
        """So many items there are."""
        for column in (self._late, self._ever):
            column.extend_to(items, 0)
