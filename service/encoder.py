"""Pixels -> unit vectors, by the release's ONNX graph in onnxruntime."""

import os
from pathlib import Path

import numpy as np

# Must stand before the import: a later call of the API does not stop it.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime

PREFERRED_PROVIDERS = ("CUDAExecutionProvider", "CPUExecutionProvider")


class Encoder:
    """The CNN of one release. Safe to call from several threads."""

    def __init__(self, path: Path, *, threads: int | None = None) -> None:
        """threads: of one call (default: as many as this process may use)."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or available_cpus()
        options.log_severity_level = 3
        available = onnxruntime.get_available_providers()
        providers = [provider for provider in PREFERRED_PROVIDERS if provider in available]
        self._session = onnxruntime.InferenceSession(str(path), options, providers=providers)
        self.dim = int(self._session.get_outputs()[0].shape[1])

    @property
    def provider(self) -> str:
        """The execution provider that onnxruntime settled on."""
        return str(self._session.get_providers()[0])

    def encode(self, pixels: np.ndarray) -> np.ndarray:
        """pixels: (n, 224, 224, 3) uint8 -> (n, dim) float32, unit length."""
        if not len(pixels):
            return np.empty((0, self.dim), np.float32)
        (vectors,) = self._session.run(["embeddings"], {"images": pixels})
        return np.asarray(vectors)


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
