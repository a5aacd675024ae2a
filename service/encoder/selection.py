"""Pixels -> unit vectors: one small protocol, and the choice of the engine and precision that are the fastest here."""

import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from service.encoder.engines import ENGINES, installed
from service.errors import EncoderUnavailable

AUTO = "auto"
TRITON = "triton"
CHOICES = (AUTO, *ENGINES, TRITON)
PRECISIONS = ("fp32", "int8", "fp16")
MEASURED_SECONDS = 0.15  # for each candidate
# cosine with the golden vectors of the precision; engines round int8 differently
SAME = {"fp32": 0.999, "int8": 0.99, "fp16": 0.999}


class Encoder(Protocol):
    """The CNN of one release. Safe to call from several threads."""

    dim: int
    largest_batch: int  # that makes it faster

    @property
    def degraded(self) -> str:
        """Why this thread's last call was answered otherwise than it should be; empty where it was not."""

    def encode(self, pixels: np.ndarray) -> np.ndarray:
        """pixels: (n, 224, 224, 3) uint8 -> (n, dim) float32, unit length."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """An engine, and the file of one precision that it may run."""

    engine: str
    precision: str
    path: Path
    engine_cache: Path | None = None

    def open(self, *, threads: int, lanes: int = 1) -> Encoder:
        """Load it."""
        return ENGINES[self.engine](
            self.path, threads=threads, lanes=lanes, precision=self.precision, engine_cache=self.engine_cache
        )

    def __str__(self) -> str:
        return f"{self.engine} {self.precision}"


@dataclass(frozen=True, slots=True)
class Chosen:
    """The encoder that was taken, and why: the milliseconds of each candidate, or what was wrong with it."""

    encoder: Encoder
    candidate: Candidate
    tried: Mapping[str, str]


def candidates(
    files: Mapping[str, Path], *, engine: str = AUTO, precision: str = AUTO, engine_cache: Path | None = None
) -> list[Candidate]:
    """What may be tried. files: precision -> ONNX file; engine_cache: folder that keeps what an engine builds, or None.
    Raises EncoderUnavailable where nothing is left."""
    engines = installed() if engine == AUTO else [engine]
    precisions = list(files) if precision == AUTO else [precision]
    if engine not in CHOICES or engine not in (AUTO, *installed()):
        raise EncoderUnavailable(f"VITRINE_ENCODER={engine}: expected {', '.join((AUTO, *installed(), TRITON))}")
    if precision not in (AUTO, *files):
        raise EncoderUnavailable(
            f"VITRINE_PRECISION={precision}: this release has {', '.join(files)}; "
            f"make it with vitrine train --precision {precision}"
        )
    return [Candidate(name, each, files[each], engine_cache) for name in engines for each in precisions]


def choose(
    found: Iterable[Candidate], golden: np.ndarray, vectors: Mapping[str, np.ndarray], *, threads: int, lanes: int
) -> Chosen:
    """Load every candidate, have it encode golden pictures for a moment, and keep the fastest of those that are right.

    golden: (n, 224, 224, 3) uint8; vectors: precision -> (n, dim), what they must give.
    Raises EncoderUnavailable where no candidate gives them."""
    tried: dict[str, str] = {}
    best: tuple[float, Candidate, Encoder] | None = None
    for candidate in found:
        encoder = candidate.open(threads=threads, lanes=lanes)
        cosine = float(np.einsum("nd,nd->n", encoder.encode(golden), vectors[candidate.precision]).min(initial=1))
        if cosine < SAME[candidate.precision]:
            tried[str(candidate)] = f"wrong: cosine {cosine:.4f} with the golden vectors"
            continue
        seconds = _measure(encoder, golden[:1])
        tried[str(candidate)] = f"{seconds * 1000:.2f} ms"
        if best is None or seconds < best[0]:
            best = (seconds, candidate, encoder)
    if best is None:
        raise EncoderUnavailable(f"no engine gives the vectors that this release was made with: {tried}")
    return Chosen(best[2], best[1], tried)


def _measure(encoder: Encoder, picture: np.ndarray) -> float:
    """Seconds for one picture, the best of those that fit a moment."""
    best, end = float("inf"), time.perf_counter() + MEASURED_SECONDS
    while time.perf_counter() < end:
        started = time.perf_counter()
        encoder.encode(picture)
        best = min(best, time.perf_counter() - started)
    return best


def available_cpus() -> int:
    """CPUs this process may use: the container's limit (cgroup v2 or v1), not the host's cores."""
    cpus = len(os.sched_getaffinity(0))
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota = Path("/sys/fs/cgroup/cpu/cpu.cfs_quota_us").read_text()
            period = Path("/sys/fs/cgroup/cpu/cpu.cfs_period_us").read_text()
        except OSError:
            return cpus
    if quota.strip() in ("max", "-1"):
        return cpus
    return max(1, min(cpus, int(quota) // int(period)))
