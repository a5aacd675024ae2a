"""A TensorRT plan of a release's encoder: kept where it answers alike, refused where it does not."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from service.encoder.engines import OnnxRuntime
from service.errors import ReleaseMismatch, VitrineError
from service.recommender.release import Manifest
from training.data.catalogue_reader import read
from training.triton import tensorrt
from training.triton.lint import lint


def toolkit(work: Callable[[np.ndarray], np.ndarray], *, version: str = "10.7.0") -> tensorrt.Toolkit:
    """Stands where a GPU would: a "plan" is the ONNX file, run by onnxruntime, its vectors changed by `work`."""

    def opened(plan: Path) -> tensorrt.Encode:
        network = OnnxRuntime(plan, threads=2)
        return lambda pixels: work(network.encode(pixels))

    def build(encoder: Path, plan: Path, precision: str) -> None:
        shutil.copy(encoder, plan)

    return tensorrt.Toolkit("9.0", version, build, opened)


def test_a_plan_that_answers_alike_is_installed(
    model_repository: Path, release_folder: Path, boutique_folder: Path, tmp_path: Path
) -> None:
    """Under a name that says network, GPU, TensorRT and precision; the linter finds nothing wrong with it."""
    found = tensorrt.export(
        release_folder, read(boutique_folder), model_repository, plans=tmp_path / "plans", toolkit=toolkit(lambda v: v),
        least_overlap=0.98, user_key="vitrine",
    )  # fmt: skip
    fingerprint = (Manifest.read(release_folder).encoder or {})["fingerprint"][:16]
    assert Path(found["plan"]).name == f"encoder-{fingerprint}-sm90-trt10.7.0-fp16.plan"
    assert found["final_overlap_median"] == 1
    assert (model_repository / "encoder_trt" / "1" / "model.plan").exists()
    assert lint(model_repository) == []


def test_a_plan_that_answers_otherwise_is_refused(
    model_repository: Path, release_folder: Path, boutique_folder: Path, tmp_path: Path
) -> None:
    """With the figures; neither it nor its model is left behind."""

    def noisy(vectors: np.ndarray) -> np.ndarray:
        changed = vectors + np.random.default_rng(0).normal(0, 0.2, vectors.shape).astype(np.float32)
        return changed / np.linalg.norm(changed, axis=1, keepdims=True)

    with pytest.raises(ReleaseMismatch, match=r"top-10 overlap 0\.\d"):
        tensorrt.export(
            release_folder, read(boutique_folder), model_repository, plans=tmp_path / "plans", toolkit=toolkit(noisy),
            least_overlap=0.98, user_key="vitrine",
        )  # fmt: skip
    assert not list((tmp_path / "plans").iterdir())
    assert not (model_repository / "encoder_trt").exists()


def test_trtexec_is_asked_for_the_batches_that_are_served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sizes, precision and files, on the command line of the program on PATH; what it says on failure is shown."""
    program = tmp_path / "trtexec"
    program.write_text(
        '#!/bin/sh\nfor a in "$@"; do case $a in --saveEngine=*) echo "$@" > "${a#--saveEngine=}";; esac; done\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    tensorrt.build_plan(tmp_path / "encoder.onnx", tmp_path / "plan", "fp16")
    said = (tmp_path / "plan").read_text().split()
    assert f"--onnx={tmp_path / 'encoder.onnx'}" in said
    assert {"--minShapes=images:1x224x224x3", "--maxShapes=images:32x224x224x3", "--fp16"} <= set(said)
    program.write_text("#!/bin/sh\necho no such layer; exit 3\n")
    with pytest.raises(VitrineError, match=r"^trtexec failed with 3: no such layer") as refused:
        tensorrt.build_plan(tmp_path / "encoder.onnx", tmp_path / "plan", "fp32")
    assert refused.type is VitrineError


def test_without_tensorrt_the_verb_says_what_is_missing(release_folder: Path, boutique_folder: Path) -> None:
    """One line, exit code 1."""
    command = [sys.executable, "-m", "training", "export-tensorrt", str(release_folder)]
    done = subprocess.run([*command, "--catalogue", str(boutique_folder)], capture_output=True, text=True, check=False)
    if "there is no GPU here" in done.stderr:
        pytest.skip("TensorRT is installed here")
    assert done.returncode == 1
    assert "TensorRT is not installed here" in done.stderr
