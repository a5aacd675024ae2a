"""What is declared in two places says the same in both."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from service.recommender.release import Manifest
from training.packaging.bento import containerfile

HOME = Path(__file__).parent.parent
BASE = ("registry.example:5000/python:3.11-slim", "sha256:" + "1" * 64)


def test_the_bento_installs_what_the_project_declares() -> None:
    """bentofile.yaml's packages are the service's dependencies and the extra `cpu`: no torch, no pandas."""
    project = tomllib.loads((HOME / "pyproject.toml").read_text())["project"]
    bento = yaml.safe_load((HOME / "bentofile.yaml").read_text())
    assert bento["python"]["packages"] == project["dependencies"] + project["optional-dependencies"]["cpu"]


def test_an_image_is_built_on_a_base_by_its_digest(release_folder: Path) -> None:
    """Its first line, and the labels that OCI has for it."""
    text = containerfile(release_folder, Manifest.read(release_folder), "cpu", "0", BASE)
    assert text.startswith(f"FROM registry.example:5000/python@{BASE[1]}\n")
    assert f'LABEL org.opencontainers.image.base.digest="{BASE[1]}"' in text


@pytest.mark.parametrize("flavour", ["cpu", "gpu"])
def test_what_images_are_built_from_is_clean(release_folder: Path, flavour: str, tmp_path: Path) -> None:
    """By hadolint, which also reads the shell of each RUN."""
    rendered = tmp_path / "Containerfile"
    rendered.write_text(containerfile(release_folder, Manifest.read(release_folder), flavour, "0", BASE))
    for path in (rendered, HOME / "tests" / "container" / "Containerfile.triton"):
        command = [str(Path(sys.executable).with_name("hadolint")), str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (0, ""), path


def test_slimming_takes_out_what_is_never_loaded_and_compiles_the_rest(tmp_path: Path) -> None:
    """Of an environment like an image's."""
    packages = tmp_path / "lib" / "python3.11" / "site-packages"
    for name in ("openvino/libs/libopenvino_onnx_frontend.so.1", "openvino/libs/libopenvino_jax_frontend.so.1",
                 "numpy/__init__.py", "numpy/tests/test_it.py", "numpy/include/it.h", "pip/__init__.py",
                 "onnxruntime/capi/state.so", "onnxruntime/quantization/it.py"):  # fmt: skip
        (packages / name).parent.mkdir(parents=True, exist_ok=True)
        (packages / name).touch()
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").symlink_to(sys.executable)
    subprocess.run(
        ["bash", str(HOME / "training" / "packaging" / "slim.sh"), str(tmp_path)], check=True, capture_output=True
    )
    left = {str(path.relative_to(packages)) for path in packages.rglob("*") if path.is_file()}
    compiled = f"numpy/__pycache__/__init__.{sys.implementation.cache_tag}.pyc"
    frontend = "openvino/libs/libopenvino_onnx_frontend.so.1"
    assert left == {frontend, "numpy/__init__.py", compiled, "onnxruntime/capi/state.so"}
