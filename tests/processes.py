"""Real processes for tests: a service on a release, and a Triton server on a model repository."""

import itertools
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import httpx

HOME = Path(__file__).parent.parent
START_WITHIN = 240.0  # seconds, on a machine that has other things to do
FIXTURES = HOME / "tests" / "fixtures"


_worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:])
# below the ports that the kernel gives to clients, each once, and other ones in each test process
_ports = itertools.cycle(range(10_000 + _worker * 4_000 + os.getpid() % 2_000, 14_000 + _worker * 4_000))


def free_port() -> int:
    """A port that nobody listens on, and that no other test is given."""
    for port in _ports:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)):
                return port
    raise AssertionError("a cycle does not end")


def wait_until(reached: Callable[[], bool], *, seconds: float = 60, log: Path | None = None) -> float:
    """Seconds until it is so."""
    began = time.monotonic()
    while not reached():
        assert time.monotonic() < began + seconds, log.read_text()[-5000:] if log else f"not within {seconds} s"
        time.sleep(0.05)
    return time.monotonic() - began


@dataclass(frozen=True)
class Service:
    """A service process, its HTTP and its gRPC."""

    process: subprocess.Popen
    http: httpx.Client
    grpc: str
    metrics: int  # port of /metrics
    log: Path

    def metrics_page(self) -> str:
        """What Prometheus reads."""
        return httpx.get(f"http://127.0.0.1:{self.metrics}/metrics", timeout=10).text

    @property
    def address(self) -> str:
        """host:port of HTTP, as tritonclient takes it."""
        return f"{self.http.base_url.host}:{self.http.base_url.port}"

    def ready(self) -> bool:
        """Whether it answers its readiness probe."""
        assert self.process.poll() is None, self.log.read_text()[-5000:]
        try:
            return self.http.get("/readyz").status_code == 200
        except httpx.TransportError:
            return False

    def metric(self, name: str) -> float:
        """The value of a metric, with its labels as `/metrics` writes them; 0 where it is not there."""
        lines = self.metrics_page().splitlines()
        return float(next((line.rpartition(" ")[2] for line in lines if line.startswith(f"{name} ")), 0))


@contextmanager
def serve(
    release: Path, home: Path, environment: Mapping[str, str] | None = None, *, verify: Path | None = None
) -> Iterator[Service]:
    """`vitrine serve` on free ports, ready; ended by SIGTERM, at once. verify: certificate that TLS is checked with."""
    port, grpc_port, metrics_port = free_port(), free_port(), free_port()
    home.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "training", "serve", str(release), "--port", str(port)]
    command += ["--grpc-port", str(grpc_port), "--metrics-port", str(metrics_port)]
    log = home / "log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            command, env={**os.environ, "BENTOML_HOME": str(home), **(environment or {})}, cwd=HOME,
            stdout=file, stderr=file,
        )  # fmt: skip
        url = f"{'https' if verify else 'http'}://127.0.0.1:{port}"
        try:
            with httpx.Client(base_url=url, timeout=30, verify=str(verify) if verify else True) as client:
                service = Service(process, client, f"127.0.0.1:{grpc_port}", metrics_port, log)
                wait_until(service.ready, seconds=START_WITHIN, log=log)
                yield service
        finally:
            for _ in range(2):  # nobody is on the way who would have to be waited for
                process.terminate()
                time.sleep(0.1)
            process.wait(timeout=30)


def shadow_report(service: Service, out: Path, thresholds: Path) -> subprocess.CompletedProcess[str]:
    """`vitrine shadow-report` of it, to its end."""
    command = [
        sys.executable, "-m", "training", "shadow-report", str(service.http.base_url), "--out", str(out),
        "--metrics-port", str(service.metrics), "--thresholds", str(thresholds),
    ]  # fmt: skip
    return subprocess.run(command, cwd=HOME, capture_output=True, text=True, check=False)


@dataclass
class Triton:
    """A Triton server process over a repository, in poll mode."""

    program: Path
    repository: Path
    log: Path
    http: str
    grpc: str
    process: subprocess.Popen | None = None

    def start(self) -> None:
        """Start it, and wait until it is ready."""
        http, grpc = (address.rpartition(":")[2] for address in (self.http, self.grpc))
        flags = [
            f"--model-repository={self.repository}", "--model-control-mode=poll", "--repository-poll-secs=1",
            "--http-address=127.0.0.1", "--grpc-address=127.0.0.1", f"--http-port={http}", f"--grpc-port={grpc}",
            "--allow-metrics=false", "--exit-on-error=false",
        ]  # fmt: skip
        with self.log.open("ab") as file:
            self.process = subprocess.Popen([self.program, *flags], stdout=file, stderr=file, start_new_session=True)
        wait_until(lambda: self.answers("/v2/health/ready"), log=self.log)

    def answers(self, path: str) -> bool:
        """Whether a GET gives 200."""
        assert self.process is not None
        assert self.process.poll() is None, self.log.read_text()[-5000:]
        try:
            return httpx.get(f"http://{self.http}{path}").status_code == 200
        except httpx.TransportError:
            return False

    def has(self, version: int) -> bool:
        """Whether it serves this version of the encoder."""
        return self.answers(f"/v2/models/encoder/versions/{version}/ready")

    def kill(self) -> None:
        """SIGKILL to it and to the processes of its backends, which it leaves behind."""
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None


@contextmanager
def triton(program: Path, folder: Path) -> Iterator[Triton]:
    """A server, not yet started, over a copy of the project's repository."""
    repository = Path(shutil.copytree(HOME / "model_repository", folder / "repository"))
    for version in (repository / "encoder").glob("[0-9]*"):
        shutil.rmtree(version)
    server = Triton(program, repository, folder / "triton.log", f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}")
    try:
        yield server
    finally:
        server.kill()


@contextmanager
def mlflow(folder: Path) -> Iterator[str]:
    """A real MLflow server, which keeps everything in a folder; gives its address."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    command = [
        sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
        "--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", str(folder / "artefacts"),
    ]  # fmt: skip
    environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"}
    log = folder / "log"
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, env=environment, start_new_session=True)
    url = f"http://127.0.0.1:{port}"

    def healthy() -> bool:
        try:
            return httpx.get(f"{url}/health").status_code == 200
        except httpx.TransportError:
            return False

    try:
        wait_until(healthy, log=log)
        yield url
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


class Clients:
    """Threads that ask as long as the block lasts: each runs its function until `done` is set."""

    def __init__(self, asks: Sequence[Callable[[], None]]) -> None:
        self.done = threading.Event()
        self._threads = [threading.Thread(target=ask) for ask in asks]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.done.set()
        for thread in self._threads:
            thread.join()
