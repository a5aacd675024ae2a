"""The Triton model repository: installing releases, removing them, and what the linter finds."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from service.encoder.engines import OnnxRuntime
from service.errors import ReleaseDamaged, ReleaseMismatch, VitrineError
from service.recommender.release import Manifest, Release
from service.serving import model_repository as installing
from tests.processes import HOME
from tests.quick import options
from training.data.catalogue_reader import read
from training.encoder.export import WEIGHTS, named_after_weights
from training.pipeline import train
from training.triton import repository, tensorrt
from training.triton.lint import lint


@pytest.fixture
def model_repository(tmp_path: Path, release_folder: Path) -> Path:
    """The project's repository with release 1 installed."""
    ignored = shutil.ignore_patterns("[0-9]*")
    folder = Path(shutil.copytree(HOME / "model_repository", tmp_path / "repository", ignore=ignored))
    installing.install(Release.open(release_folder), folder)
    return folder


def test_training_installs_its_release_as_the_version_of_its_number(
    boutique_folder: Path, release_folder: Path
) -> None:
    """`--only export --model-repository` finds the release that holds the encoder; twice is once."""
    folder = release_folder.parent / "repository"
    asked = options(boutique_folder, release_folder.parent, only="export", model_repository=folder)
    for _ in range(2):
        assert train(asked) is None
    assert (folder / "encoder" / "1" / "model.onnx").read_bytes() == (release_folder / "encoder.onnx").read_bytes()
    assert (folder / "encoder" / "config.pbtxt").read_text() == installing.CONFIG.read_text()
    assert [path.name for path in (folder / "encoder").iterdir() if path.name.startswith(".")] == []


def test_a_version_is_never_another_network_than_before(model_repository: Path, copied_release: Path) -> None:
    """Neither one that was changed, nor another release of the number."""
    (model_repository / "encoder" / "1" / "model.onnx").write_bytes(b"another")
    with pytest.raises(ReleaseMismatch, match="never given twice"):
        installing.install(Release.open(copied_release), model_repository)
    (copied_release / "encoder.onnx").write_bytes(b"tampered")
    with pytest.raises(ReleaseDamaged):
        installing.install(Release.open(copied_release), model_repository)


def test_pods_that_start_together_install_one_version(copied_release: Path, tmp_path: Path) -> None:
    """Whichever is first; none takes away what another has written, and nothing else is left."""
    release = Release.open(copied_release)
    with ThreadPoolExecutor(6) as pool:
        made = list(pool.map(lambda _: installing.install(release, tmp_path), range(12)))
    assert set(made) == {tmp_path / "encoder" / "1" / "model.onnx"}
    assert made[0].read_bytes() == (copied_release / "encoder.onnx").read_bytes()
    assert sorted(path.name for path in (tmp_path / "encoder").iterdir()) == ["1", "config.pbtxt"]


def truncated(encoder: Path) -> None:
    """As a full disk leaves it."""
    encoder.write_bytes(encoder.read_bytes()[:-1000])


def of_other_weights(encoder: Path) -> None:
    """A network that runs, and gives other vectors."""
    model = onnx.load(encoder)
    largest = max(model.graph.initializer, key=lambda value: len(value.raw_data))
    largest.raw_data = np.random.default_rng(0).normal(size=len(largest.raw_data) // 4).astype(np.float32).tobytes()
    encoder.write_bytes(model.SerializeToString())


@pytest.mark.parametrize(("change", "said"), [(truncated, "cannot be run"), (of_other_weights, "other vectors")])
def test_a_network_that_fails_never_gets_a_versions_name(
    copied_release: Path, tmp_path: Path, change: Callable[[Path], None], said: str
) -> None:
    """It is run on golden pictures first; nothing of it is left, neither in a new repository nor in one that serves."""
    release = Release.open(copied_release)
    change(copied_release / "encoder.onnx")  # after the release was verified
    with pytest.raises(ReleaseDamaged, match=said):
        installing.install(release, tmp_path / "new")
    assert not (tmp_path / "new" / "encoder").exists()
    serves = tmp_path / "serves" / "encoder"
    (serves / "7").mkdir(parents=True)
    with pytest.raises(ReleaseDamaged, match=said):
        installing.install(release, tmp_path / "serves")
    assert [path.name for path in serves.iterdir()] == ["7"]


def test_an_encoder_without_a_release_has_no_number(tmp_path: Path, release_folder: Path) -> None:
    """It must be packaged first."""
    with pytest.raises(ReleaseMismatch, match="package it first"):
        repository.release_with(release_folder / "encoder.onnx", tmp_path)


def test_pruning_keeps_what_is_named(model_repository: Path, release_folder: Path, tmp_path: Path) -> None:
    """Releases that are there, what is pinned, and what VITRINE_RELEASE serves."""
    source = release_folder / "encoder.onnx"
    for version in (2, 3, 4, 5):
        folder = model_repository / "encoder"
        installing.put(source, "model.onnx", folder, version, config="", prove=lambda copy: None)
    releases = tmp_path / "releases"
    (releases / "2").mkdir(parents=True)
    command = [sys.executable, "-m", "training", "prune-repository", str(model_repository), "--releases", str(releases)]
    command += ["--pinned", "3", "--json"]
    environment = {**os.environ, "VITRINE_RELEASE": "somewhere/4"}
    for extra, left in ((["--dry-run"], [1, 2, 3, 4, 5]), ([], [2, 3, 4])):
        done = subprocess.run([*command, *extra], capture_output=True, text=True, check=True, env=environment)
        assert [Path(path).name for path in json.loads(done.stdout)["removed"]] == ["1", "5"]
        assert repository.versions(model_repository / "encoder") == left
    assert not list((model_repository / "encoder").glob(".*"))


def test_each_export_names_a_tensor_after_its_weights(
    release_folder: Path, boutique_folder: Path, tmp_path: Path
) -> None:
    """Within the graph, which has one output; another network of the same shape has another name, the same the same."""
    model = onnx.load(release_folder / "encoder.onnx")
    assert [output.name for output in model.graph.output] == ["embeddings"]
    [named] = named_after_weights(model)
    shutil.copytree(release_folder.parent / ".stages", tmp_path / ".stages")
    asked = options(boutique_folder, tmp_path)
    other = replace(asked, encoder=replace(asked.encoder, seed=1, epochs=1, last_layer_steps=10))
    for stage in ("encoder", "export"):
        train(replace(other, only=stage))
    exports = (tmp_path / ".stages").glob("export*/encoder.onnx")
    names = {name for path in exports for name in named_after_weights(onnx.load(path))}
    assert len(names) == 2
    assert named in names


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
