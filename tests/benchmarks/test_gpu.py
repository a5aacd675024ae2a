"""`make check-gpu`: what of it needs no GPU."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from tests.processes import HOME
from training.demo import boutique

SCRIPT = HOME / "benchmarks" / "gpu.py"


@pytest.fixture(scope="module")
def gpu() -> ModuleType:
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("gpu", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_without_a_gpu_it_says_what_was_not_run() -> None:
    """By name, in one line, exit code 1."""
    done = subprocess.run([sys.executable, SCRIPT], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("there is no GPU here")
    for part in ("encoder", "factors", "network", "service"):
        assert part in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.slow
def test_a_part_prints_its_figures_alone(tmp_path: Path) -> None:
    """As JSON; the same objective each time."""
    command = [sys.executable, SCRIPT, "--part", "factors", "--work", str(tmp_path)]
    found = [json.loads(subprocess.run(command, capture_output=True, check=True).stdout) for _ in range(2)]
    assert found[0]["objective"] == pytest.approx(found[1]["objective"], rel=1e-6)
    assert found[0]["seconds"] > 0


def test_the_shop_that_it_serves_from_can_be_drawn(gpu: ModuleType, tmp_path: Path) -> None:
    """A smaller one, by the same arguments."""
    boutique.write(tmp_path / "shop", **gpu.SHOP | {"items": 24})
    assert len(list((tmp_path / "shop" / "images").iterdir())) == 24


def test_what_differs_from_the_cpu_is_told(gpu: ModuleType) -> None:
    """A worse objective, other vectors, a network that did not learn, a service that left the GPU alone."""
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(4, 8))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    rates = {"1": 1.0, "8": 8.0, "32": 32.0}
    cpu = {
        "factors": {"seconds": 1.0, "objective": 100.0},
        "network": {"CPUExecutionProvider": {"rates": rates, "vectors": vectors.tolist()}},
        "encoder": {"pictures_a_second": 10.0, "precision": [0.8] * 50},
        "service": {"requests_a_second": 10.0, "mebibytes": 0.0},
    }

    def provider(found: np.ndarray) -> dict:
        missing = {"unavailable": "not installed"}
        there = {"rates": rates, "vectors": found.tolist()}
        return {"TensorrtExecutionProvider": missing, "CUDAExecutionProvider": there}

    good = {
        "factors": {"seconds": 0.1, "objective": 100.1}, "network": provider(vectors),
        "encoder": {"pictures_a_second": 100.0, "precision": [0.79] * 50},
        "service": {"requests_a_second": 20.0, "mebibytes": 300.0},
    }  # fmt: skip
    bad = {
        "factors": {"seconds": 0.1, "objective": 102.0}, "network": provider(-vectors),
        "encoder": {"pictures_a_second": 100.0, "precision": [0.5] * 50},
        "service": {"requests_a_second": 20.0, "mebibytes": 0.0},
    }  # fmt: skip
    for part, figures in cpu.items():
        assert all(right for *_, right in gpu.compare(part, figures, good[part])), part
        assert not all(right for *_, right in gpu.compare(part, figures, bad[part])), part
    said = gpu.compare("network", cpu["network"], good["network"])
    assert "not run: not installed" in said[0][3]
