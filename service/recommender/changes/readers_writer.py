"""Many may read at once, or one may change what they read."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class ReadersWriter:
    """A lock for short reads and shorter changes. Who comes to read while a change waits goes after it."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._readers, self._waiting, self._writing = 0, 0, False

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Nothing changes during the block. One thread must not enter it twice."""
        with self._changed:
            while self._writing or self._waiting:
                self._changed.wait()
            self._readers += 1
        try:
            yield
        finally:
            with self._changed:
                self._readers -= 1
                if not self._readers:
                    self._changed.notify_all()

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Nobody reads during the block."""
        with self._changed:
            self._waiting += 1
            while self._writing or self._readers:
                self._changed.wait()
            self._waiting -= 1
            self._writing = True
        try:
            yield
        finally:
            with self._changed:
                self._writing = False
                self._changed.notify_all()
