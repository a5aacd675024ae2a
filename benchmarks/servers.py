"""Servers under measurement: each a tree of processes of its own, asleep while another is measured."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

HERE = Path(__file__).resolve().parent
READY_WITHIN = 120.0  # seconds
MIB = 2**20


class Server:
    """One server process with its children. Started in `with`; nothing of it is left afterwards."""

    def __init__(
        self, name: str, command: list[str], *, ready: str, environment: dict[str, str], log: Path, detail: str = ""
    ) -> None:
        """command: without the port, which is added; ready: the path that answers 200 once it serves;
        detail: how it is configured, for the report."""
        self.name, self.detail = name, detail
        self._command, self._ready, self._environment, self._log = command, ready, environment, log
        self._process: subprocess.Popen | None = None
        self._port = self._metrics_port = 0

    @property
    def url(self) -> str:
        """Where pictures are sent."""
        return f"http://127.0.0.1:{self._port}/recommend"

    def __enter__(self) -> "Server":
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._metrics_port = probe.getsockname()[1]
        environment = {"VITRINE_METRICS_PORT": str(self._metrics_port), **self._environment}
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [*self._command, "--port", str(self._port)], env={**os.environ, **environment},
                cwd=HERE.parent, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        try:
            self._wait_until_ready()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        # each by its id, children first: LitServe's would outlive their parent
        tree = self._tree()[::-1]
        for signalled in (signal.SIGTERM, signal.SIGCONT):
            for process in tree:
                with suppress(psutil.NoSuchProcess):
                    process.send_signal(signalled)
        _, alive = psutil.wait_procs(tree, timeout=10)
        for process in alive:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        if self._process is not None:
            self._process.wait()

    def sleep(self) -> None:
        """Stop it by a signal: LitServe polls its queues even when nobody asks, and would take CPU from the others."""
        self._signal(signal.SIGSTOP)

    @contextmanager
    def awake(self) -> Iterator[None]:
        """Let it run."""
        self._signal(signal.SIGCONT)
        try:
            yield
        finally:
            self.sleep()

    def cpu_seconds(self) -> float:
        """Of all its processes, so far."""
        times = [process.cpu_times() for process in self._tree()]
        return sum(time.user + time.system for time in times)

    def rss(self) -> float:
        """MiB of all its processes, as `ps` has it: pages that they share count in each."""
        return sum(process.memory_info().rss for process in self._tree()) / MIB

    def memory(self) -> tuple[float, float]:
        """MiB of all its processes: what they have to themselves, and what they have mapped of files."""
        facts = [process.memory_info() for process in self._tree()]
        return sum(each.rss - each.shared for each in facts) / MIB, sum(each.shared for each in facts) / MIB

    def gauge(self, name: str) -> float:
        """One value of its Prometheus metrics. Raises ValueError where it has no such gauge."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self._metrics_port}/metrics", timeout=30) as answer:
            for line in answer.read().decode().splitlines():
                if line.startswith(f"{name} "):
                    return float(line.rpartition(" ")[2])
        raise ValueError(f"{self.name} has no metric {name}")

    def _tree(self) -> list[psutil.Process]:
        assert self._process is not None
        try:
            root = psutil.Process(self._process.pid)
            return [root, *root.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def _signal(self, signalled: int) -> None:
        for process in self._tree():
            process.send_signal(signalled)

    def _wait_until_ready(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + READY_WITHIN
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise SystemExit(f"{self.name} ended before it served:\n{self._log.read_text()}")
            with suppress(urllib.error.URLError, ConnectionError):
                urllib.request.urlopen(f"http://127.0.0.1:{self._port}{self._ready}", timeout=5)
                return
            time.sleep(0.1)
        raise SystemExit(f"{self.name} was not ready within {READY_WITHIN:.0f} s:\n{self._log.read_text()}")


def vitrine(
    release: Path, work: Path, *, encoder: str | None, name: str = "vitrine", **settings: str
) -> Server:  # fmt: skip
    """Ours. encoder: VITRINE_ENCODER, or None for what it takes by itself; settings: others, by their names."""
    environment = {"BENTOML_HOME": str(work / name), "BENTOML_DO_NOT_TRACK": "True", **settings}
    if encoder is not None:
        environment["VITRINE_ENCODER"] = encoder
    command = [sys.executable, "-m", "training", "serve", str(release), "--grpc-port", "0"]
    return Server(
        name, command, ready="/readyz", environment=environment, log=work / f"{name}.log",
        detail=f"VITRINE_ENCODER={encoder}" if encoder else "as it comes",
    )  # fmt: skip


def glued(release: Path, work: Path, *, threads: int) -> Server:
    """FastAPI, onnxruntime, hnswlib and numpy. threads: of one call of onnxruntime, 0 for its default."""
    command = [sys.executable, str(HERE / "peers" / "glued.py"), str(release), "--threads", str(threads)]
    detail = f"onnxruntime threads: {threads or 'default'}"
    return Server("glued", command, ready="/health", environment={}, log=work / "glued.log", detail=detail)


def litserve(release: Path, work: Path, *, threads: int, workers: int) -> Server:
    """LitServe with batching."""
    command = [sys.executable, str(HERE / "peers" / "litserve_app.py"), str(release)]
    command += ["--threads", str(threads), "--workers", str(workers)]
    detail = f"workers: {workers}, onnxruntime threads: {threads or 'default'}"
    return Server("litserve", command, ready="/health", environment={}, log=work / "litserve.log", detail=detail)
