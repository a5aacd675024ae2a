"""Arrays that rows are added to."""

import numpy as np

SPARE = 1024  # rows that there is room for at least, once one was added


class Growing:
    """An array that grows at its end, at a cost that does not depend on how long it is."""

    def __init__(self, begun: np.ndarray) -> None:
        """begun: (n, ...), what it starts with; it is copied once a row is added."""
        self._data, self._size = begun, len(begun)

    def __len__(self) -> int:
        return self._size

    @property
    def array(self) -> np.ndarray:
        """(n, ...): all there is, as a view."""
        return self._data[: self._size]

    def append(self, rows: np.ndarray) -> None:
        """Add rows (m, ...) at the end."""
        needed = self._size + len(rows)
        if needed > len(self._data):
            grown = np.empty((needed + max(SPARE, needed // 8), *self._data.shape[1:]), self._data.dtype)
            grown[: self._size] = self._data[: self._size]
            self._data = grown
        self._data[self._size : needed] = rows
        self._size = needed

    def extend_to(self, size: int, value: float | bool) -> None:
        """Have it hold `size` rows, the new ones all `value`."""
        if size > self._size:
            self.append(np.full((size - self._size, *self._data.shape[1:]), value, self._data.dtype))
