"""A deadline for what is asked of PostgreSQL: a server that hangs, or a network that is cut, says nothing at all."""

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

CHECK = 0.5  # seconds between looks at who waits for too long


class Deadline:
    """Breaks the connections that wait for too long, in a thread of its own."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._waiting: dict[int, float] = {}  # file descriptor -> when it is broken
        self._changing, self._ending = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="store-deadline", daemon=True)
        self._thread.start()

    @contextmanager
    def on(self, connection: int) -> Iterator[None]:
        """connection: file descriptor of a socket, which the block may close."""
        own = os.dup(connection)  # whose number no other socket gets meanwhile
        with self._changing:
            self._waiting[own] = time.monotonic() + self._seconds
        try:
            yield
        finally:
            with self._changing:
                self._waiting.pop(own)
                os.close(own)

    def close(self) -> None:
        """End the thread."""
        self._ending.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ending.wait(CHECK):
            now = time.monotonic()
            with self._changing:
                for descriptor, until in self._waiting.items():
                    if until < now:
                        _break(descriptor)


def _break(descriptor: int) -> None:
    """Who waits for this socket gets an error."""
    with suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as broken:
        broken.shutdown(socket.SHUT_RDWR)
