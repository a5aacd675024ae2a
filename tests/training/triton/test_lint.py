"""What the linter of the Triton model repository finds, and what it does not."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

from service.serving import model_repository as installing
from tests.training.triton.conftest import truncated
from training.encoder.export import WEIGHTS
from training.triton.lint import lint

Change = Callable[[Path], None]


def edit(old: str, new: str) -> Change:
    """Replace a text of encoder/config.pbtxt."""

    def change(folder: Path) -> None:
        path = folder / "encoder" / "config.pbtxt"
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))

    return change


def output(tensor: str) -> Change:
    """Name an output in the configuration."""
    return edit("version_policy", f"output [ {{ name: {tensor} }} ]\nversion_policy")


def changed(folder: Path, change: Callable[[onnx.ModelProto], None]) -> None:
    """The network of version 1, otherwise."""
    path = folder / "encoder" / "1" / "model.onnx"
    model = onnx.load(path)
    change(model)
    path.write_bytes(model.SerializeToString())


def rename_weights(folder: Path) -> None:
    """As an export of older code would have it."""

    def rename(model: onnx.ModelProto) -> None:
        for node in model.graph.node:
            for names in (node.input, node.output):
                names[:] = [name.replace(WEIGHTS, "tensor_") for name in names]

    changed(folder, rename)


def without_a_weight(folder: Path) -> None:
    """A file that is whole, of a graph that is not."""
    changed(folder, lambda model: model.graph.initializer.pop())


WRONG: dict[str, tuple[Change, str]] = {
    "an unknown field": (edit("max_batch_size: 32", "max_batch: 32"), "not a model configuration"),
    "an unknown enum": (edit("TYPE_UINT8 dims", "TYPE_UINT7 dims"), "not a model configuration"),
    "another name": (edit('name: "encoder"', 'name: "other"'), "name is 'other'"),
    "another backend": (edit('"onnxruntime"', '"onnx"'), "backend is 'onnx'"),
    "a kind": (edit("{ count: 2 }", "{ count: 2 kind: KIND_GPU }"), "kind KIND_GPU"),
    "an accelerator's name": (edit('"tensorrt"', '"tensor_rt"'), "expected tensorrt"),
    "a parameter's name": (edit("trt_engine_cache_enable", "trtEngineCacheEnable"), "did you mean"),
    "a parameter's case": (edit('"FP16"', '"fp16"'), "must be FP32, FP16, BF16, INT8"),
    "a parameter's number": (edit('"1073741824"', '"1G"'), "whole number"),
    "a policy that unloads": (edit("all { }", "latest { num_versions: 1 }"), "not `all`"),
    "a version that is absent": (edit("all { }", "specific { versions: [1, 9] }"), r"not there: \[9\]"),
    "a warm-up above the batch": (edit("batch_size: 32 inputs", "batch_size: 64 inputs"), "can end the server"),
    "a warm-up's input": (edit('key: "images"', 'key: "image"'), "the model takes"),
    "a warm-up's shape": (edit("dims: [ 224, 224, 3 ] zero", "dims: [ 32, 32, 3 ] zero"), "another type or shape"),
    "no timeout": (edit("default_timeout_microseconds: 2000000", ""), "late work"),
    "a cache": (edit("max_batch_size: 32", "max_batch_size: 32 response_cache { enable: true }"), "--cache-config"),
    "a tensor's name": (output('"vectors" data_type: TYPE_FP32 dims: [ 128 ]'), "no output 'vectors'"),
    "a tensor's type": (output('"embeddings" data_type: TYPE_FP16 dims: [ 128 ]'), "is FLOAT in the graph"),
    "a tensor's dims": (output('"embeddings" data_type: TYPE_FP32 dims: [ 128, 7 ]'), "specifies 3 dimensions"),
    "a dimension left open": (
        output('"embeddings" data_type: TYPE_FP32 dims: [ -1 ]'),
        r"expects 2 dimensions \(shape \[-1, \d+\]\) but .* \(complete shape \[-1, -1\]\).*leave the entry out",
    ),
    "a parameter that nobody reads": (edit('"intra_op_thread_count"', '"intra_op_threads"'), "no parameter 'intra_op_"),
    "a shape profiled in part": (
        edit('        parameters { key: "trt_profile_opt_shapes" value: "images:8x224x224x3" }\n', ""), "by all of"
    ),
    "a truncated network": (lambda folder: truncated(folder / "encoder" / "1" / "model.onnx"), "no server can load"),
    "a network without a part": (without_a_weight, "onnxruntime cannot load it"),
    "no configuration": (lambda folder: (folder / "encoder" / "config.pbtxt").unlink(), "is missing"),
    "no model in a version": (lambda folder: (folder / "encoder" / "7").mkdir(), "model.onnx is missing"),
    "no ONNX": (lambda folder: (folder / "encoder" / "1" / "model.onnx").write_bytes(b"\0\1\2"), "not an ONNX model"),
    "weights without a name": (rename_weights, "old engine could answer"),
    "a model without a version": (lambda folder: shutil.rmtree(folder / "encoder" / "1"), "not ready"),
    "a plan model without a plan": (
        lambda folder: (folder / "encoder_trt").mkdir()
        or (folder / "encoder_trt" / "config.pbtxt").write_text(installing.PLAN_CONFIG.read_text()),
        "not ready",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_the_linter_finds_what_is_wrong(model_repository: Path, name: str) -> None:
    """Nothing in the repository as it is; exactly this after the change."""
    assert lint(model_repository) == []
    change, said = WRONG[name]
    change(model_repository)
    found = [str(each) for each in lint(model_repository)]
    assert any(re.search(said, each) for each in found), found


def test_the_linters_exit_code_is_for_pipelines(model_repository: Path) -> None:
    """0 where nothing is wrong, 1 where something is, each finding with its file."""
    command = [sys.executable, "-m", "training", "lint-repository", str(model_repository)]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    WRONG["a kind"][0](model_repository)
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert json.loads(done.stdout)[0]["path"].endswith("encoder/config.pbtxt")
