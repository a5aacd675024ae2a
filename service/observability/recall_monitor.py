"""Whether the index still finds what is nearest: now and then a search is held against looking at every vector."""

import threading
from collections import deque
from collections.abc import Callable

import numpy as np

from service.recommender.index.vector_index import Index

K = 10
LAST = 100  # probes that the figure is the mean of
APART = 0.3  # how far a query lies from the item that it is made of: another photo of the same garment


class RecallMonitor:
    """A thread that asks one question at a time, at the lowest priority."""

    def __init__(self, index: Callable[[], Index | None], tell: Callable[[float], None], *, every: float) -> None:
        """index: of the release that answers; tell: called with the mean recall@10 of the last probes; every:
        seconds, 0 for never."""
        self._index, self._tell, self._every = index, tell, every
        self._last: deque[float] = deque(maxlen=LAST)
        self._of: Index | None = None
        self._draw, self._ending = np.random.default_rng(0), threading.Event()
        if every:
            threading.Thread(target=self._run, name="recall-probe", daemon=True).start()

    def close(self) -> None:
        """Probe no longer."""
        self._ending.set()

    def _run(self) -> None:
        while not self._ending.wait(self._every):
            index = self._index()
            if index is None or not len(index):
                continue
            if index is not self._of:  # another release
                self._last.clear()
                self._of = index
            self._last.append(index.recall(self._query(index), k=min(K, len(index))))
            self._tell(float(np.mean(self._last)))

    def _query(self, index: Index) -> np.ndarray:
        """(1, dim) float32, unit length."""
        row = index.rows[self._draw.integers(len(index), size=1)]
        noise = self._draw.standard_normal((1, index.sealed_dim), np.float32)
        query = index.vectors(row) + APART * noise / np.linalg.norm(noise)
        return np.asarray(query / np.linalg.norm(query), np.float32)
