"""components/release-volume/pull: a release from a real MLflow server, whole or not at all."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.release import verify
from tests.processes import HOME, mlflow
from training.registry import Registry

pytestmark = pytest.mark.slow
SCRIPT = HOME / "k8s" / "components" / "release-volume" / "pull" / "pull_release.py"


@pytest.fixture(scope="module")
def registry(release_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A server that holds release 1; gives its address, and its folder."""
    folder = tmp_path_factory.mktemp("registry")
    with mlflow(folder / "server") as uri:
        held = Registry(uri)
        assert held.reserve(folder) == 1
        held.add(Path(shutil.copytree(release_folder, folder / "1")))
        yield uri, folder / "server"


def pull(folder: Path, number: str, uri: str) -> subprocess.CompletedProcess[str]:
    """As the init container does."""
    environment = {**os.environ, "PYTHONPATH": str(HOME), "RELEASE": number, "MLFLOW_TRACKING_URI": uri}
    command = [sys.executable, str(SCRIPT), str(folder)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_a_release_is_pulled_and_named(registry: tuple[str, Path], tmp_path: Path) -> None:
    """Its folder as it was sealed, and a pointer to it; once more changes nothing."""
    for _ in range(2):
        done = pull(tmp_path, "1", registry[0])
        assert done.returncode == 0, done.stderr
        assert (tmp_path / "current").read_text() == "1\n"
        verify(tmp_path / "1")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "current"]


def test_what_was_changed_in_the_registry_does_not_arrive(registry: tuple[str, Path], tmp_path: Path) -> None:
    """It says which file, and leaves neither a release nor a pointer."""
    [stored] = (registry[1] / "artefacts").rglob("release/items.parquet")
    kept = stored.read_bytes()
    stored.write_bytes(b"another catalogue")
    try:
        done = pull(tmp_path, "1", registry[0])
    finally:
        stored.write_bytes(kept)
    assert done.returncode == 1
    assert "changed: items.parquet" in done.stderr
    assert not list(tmp_path.glob("[!.]*"))


def test_a_release_that_is_not_there_is_named(registry: tuple[str, Path], tmp_path: Path) -> None:
    """In one line."""
    done = pull(tmp_path, "9", registry[0])
    assert done.returncode == 1
    assert "version=9" in done.stderr
    assert "Traceback" not in done.stderr
