"""A Triton server inside this container: started by the service, watched, started again when it dies.

(BentoML once had a Triton runner that did this; today's API has none.)
"""

import ctypes
import logging
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

LIBC = ctypes.CDLL(None)  # loaded here: between fork and exec a library must not be
PR_SET_PDEATHSIG = 1
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0  # seconds before it is started again
STEADY = 60.0  # seconds after which a death is the first again
GRACE = 10.0  # seconds to end

logger = logging.getLogger("vitrine")


class TritonServer:
    """A tritonserver process over a model repository, gRPC on the loopback address alone."""

    def __init__(
        self,
        program: Path,
        repository: Path,
        *,
        url: str,
        observe: Callable[[], None] = lambda: None,
    ) -> None:
        """url: host:port for its gRPC; observe: told of every start. Raises OSError where it cannot be started."""
        host, _, port = url.rpartition(":")
        self._command = [
            str(program), f"--model-repository={repository}", "--model-control-mode=poll", "--repository-poll-secs=2",
            f"--grpc-address={host}", f"--grpc-port={port}", "--allow-http=false", "--allow-metrics=false",
            # a version that cannot be loaded must not end the server that serves the others
            "--exit-on-error=false", "--strict-readiness=false",
        ]  # fmt: skip
        self._observe, self._ending = observe, threading.Event()
        self._process = self._start()
        self._watcher = threading.Thread(target=self._watch, name="tritonserver", daemon=True)
        self._watcher.start()

    @property
    def pid(self) -> int:
        """Of the process that runs now."""
        return self._process.pid

    def close(self) -> None:
        """End it."""
        self._ending.set()
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(GRACE)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._watcher.join()

    def _start(self) -> "subprocess.Popen[bytes]":
        self._observe()
        # Its own session: a signal to the service's group is the service's to pass on. Should the service be killed,
        # the kernel ends it.
        return subprocess.Popen(self._command, start_new_session=True, preexec_fn=_end_with_parent)

    def _watch(self) -> None:
        pause, began = FIRST_PAUSE, time.monotonic()
        while True:
            code = self._process.wait()
            if self._ending.is_set():
                return
            pause = FIRST_PAUSE if time.monotonic() - began > STEADY else min(2 * pause, LONGEST_PAUSE)
            logger.error("tritonserver ended with %d; it is started again in %.1f s", code, pause)
            if self._ending.wait(pause):
                return
            self._process, began = self._start(), time.monotonic()


def _end_with_parent() -> None:
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
