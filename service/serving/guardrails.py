"""The bounds that a candidate must stay within, over its latest queries."""

from collections import deque
from dataclasses import dataclass, field

WINDOW = 500  # latest queries that count


@dataclass(frozen=True, slots=True)
class Bounds:
    """Past which a candidate is stopped.

    errors: largest share of queries that it may fail;
    overlap: least mean share of production's first ten items that it must show;
    fewest: queries before either counts."""

    errors: float = 0.02
    overlap: float = 0.1
    fewest: int = 100


@dataclass(slots=True)
class Guardrails:
    """The outcomes of the latest queries, held against the bounds."""

    bounds: Bounds
    failed: deque[bool] = field(default_factory=lambda: deque(maxlen=WINDOW))
    overlaps: deque[float] = field(default_factory=lambda: deque(maxlen=WINDOW))

    def count(self, *, failed: bool, overlap: float | None = None) -> None:
        """Add one outcome. overlap: share of production's first ten items, where it was measured."""
        self.failed.append(failed)
        if overlap is not None:
            self.overlaps.append(overlap)

    def breach(self) -> str:
        """Which bound is passed, in words; empty where none is."""
        errors = sum(self.failed) / max(1, len(self.failed))
        if len(self.failed) >= self.bounds.fewest and errors > self.bounds.errors:
            return (
                f"{100 * errors:.1f} % of its last {len(self.failed)} queries failed, at most "
                f"{self.bounds.errors:.1%} may"
            )
        overlap = sum(self.overlaps) / max(1, len(self.overlaps))
        if len(self.overlaps) >= self.bounds.fewest and overlap < self.bounds.overlap:
            return (
                f"it shows {overlap:.1%} of production's items over its last {len(self.overlaps)} queries, at least "
                f"{self.bounds.overlap:.1%} are asked"
            )
        return ""
