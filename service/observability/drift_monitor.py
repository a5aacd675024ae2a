"""Whether the photos that come in are still those that the release expects.

A lane leaves what was answered about a photo; a thread counts that in bins, and keeps the counts of the last hour:
no photo, no vector, and nothing of a user.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from service.recommender.drift.reference import Counts, Observation, Reference, nearest, observe, why_not
from service.recommender.drift.stability import Drift
from service.recommender.index.vector_index import Index
from service.recommender.query import Query, SimilarQuery
from service.recommender.recommendation import Recommendation
from service.recommender.release import Release

EVERY = 1.0  # seconds between two counts
WAITING = 64  # photos that may wait for one; more are left out, so that a busy service spends no more on counting
SLICES = 12  # that a window goes forward in


class Window:
    """Counts of the last seconds, in slices of which the oldest is dropped."""

    def __init__(self, empty: Counts, *, seconds: float) -> None:
        """empty: the bins without a photo."""
        self.seconds = seconds
        self._empty = empty
        self._slices: dict[int, Counts] = {}

    def add(self, counts: Counts, *, now: float) -> None:
        """Add what was counted. now: seconds of a clock that does not go back."""
        number = self._number(now)
        self._slices[number] = _sum(self._slices.get(number, self._empty), counts)

    def total(self, *, now: float) -> Counts:
        """What was counted in the seconds before now, and up to a slice more."""
        oldest = self._number(now) - SLICES
        self._slices = {number: counts for number, counts in self._slices.items() if number >= oldest}
        found = self._empty
        for counts in self._slices.values():
            found = _sum(found, counts)
        return found

    def _number(self, now: float) -> int:
        return int(now * SLICES / self.seconds)


def _sum(counts: Counts, others: Counts) -> Counts:
    return {what: counts[what] + others[what] for what in counts}


@dataclass(frozen=True, slots=True)
class _Followed:
    """The release in production, and its photos: those not yet counted, and the counts."""

    number: str
    reference: Reference
    index: Index
    window: Window
    waiting: deque[Observation] = field(default_factory=deque)

    def measure(self, now: float) -> Drift:
        """Count what waits, and hold the window against the reference."""
        taken = [self.waiting.popleft() for _ in range(len(self.waiting))]
        if taken:
            self.window.add(self.reference.bins.count(taken, nearest(self.index, taken)), now=now)
        return self.reference.compare(self.number, self.window.total(now=now), seconds=self.window.seconds)


class DriftMonitor:
    """Counts the photos that production answers; another release begins anew."""

    def __init__(self, tell: Callable[[Drift], None], *, window: float) -> None:
        """tell: called each second with what is found; window: seconds that it is found in, 0 for never."""
        self._tell, self._window = tell, window
        self._followed: _Followed | None = None
        self._ending = threading.Event()
        self.drift = Drift("", 0, window, (), "the service is starting")
        if window:
            threading.Thread(target=self._run, name="drift", daemon=True).start()

    def close(self) -> None:
        """Count no longer."""
        self._ending.set()

    def follow(self, release: Release) -> None:
        """Count for this release from now on."""
        reference, index = release.expected_photos, release.index
        followed = None
        if self._window and reference is not None and index is not None:
            window = Window(reference.empty(), seconds=self._window)
            followed = _Followed(release.number, reference, index, window)
        self._followed = followed
        self._say(Drift(release.number, 0, self._window, (), "" if followed else self._why_not(release)))

    def offer(
        self,
        queries: Sequence[Query | SimilarQuery],
        vectors: Sequence[np.ndarray | None],
        answers: Sequence[Recommendation],
    ) -> None:
        """Take what was answered; called in a lane after each batch, never waits.

        vectors: of the queries' photos, (dim,) each, None without one. Of a canary's answers nothing is taken."""
        followed = self._followed
        if followed is None:
            return
        for query, vector, answer in zip(queries, vectors, answers, strict=True):
            if vector is not None and answer.release == followed.number and len(followed.waiting) < WAITING:
                followed.waiting.append(observe(query, vector, answer))

    def _run(self) -> None:
        while not self._ending.wait(EVERY):
            followed = self._followed
            if followed is None:
                continue
            drift = followed.measure(time.monotonic())
            if followed is self._followed:  # else another release has taken over meanwhile
                self._say(drift)

    def _say(self, drift: Drift) -> None:
        self.drift = drift
        self._tell(drift)

    def _why_not(self, release: Release) -> str:
        if not self._window:
            return "VITRINE_DRIFT_WINDOW is 0"
        return why_not(release.expected_photos, pictured=release.index is not None)
