"""The Triton model repository: installing releases, and removing them."""

import json
import os
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

from service.errors import ReleaseDamaged, ReleaseMismatch
from service.recommender.release import Release
from service.serving import model_repository as installing
from tests.quick import options
from tests.training.cli.test_commands import vitrine
from tests.training.triton.conftest import truncated
from training.encoder.export import named_after_weights
from training.pipeline import train
from training.triton import repository


def test_an_encoder_is_the_version_of_its_releases_number(release_folder: Path, tmp_path: Path) -> None:
    """`vitrine install-encoder`; twice is once."""
    folder = tmp_path / "repository"
    for _ in range(2):
        said = vitrine("install-encoder", release_folder, "--model-repository", folder).stdout
        assert said.strip() == str(folder / "encoder" / "1" / "model.onnx")
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
