"""Small real things that tests share: a drawn boutique, a release trained on it, a server process."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from service.pipeline import Recommender
from service.release import Release
from training import boutique
from training.encoder import EncoderParameters
from training.options import Options
from training.ranker import RankerParameters
from training.train import train

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def boutique_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A catalogue of 144 garments and 200 shoppers."""
    folder = tmp_path_factory.mktemp("data") / "boutique"
    boutique.write(folder, items=144, shoppers=200, seed=7)
    return folder


def options(catalogue: Path, releases: Path, **changes: object) -> Options:
    """Training that takes seconds."""
    fields: dict = {
        "catalogue": catalogue,
        "releases": releases,
        "encoder": EncoderParameters(
            backbone="convnet", weights="none", dim=32, epochs=4, batch_size=32, image_size=96, learning_rate=3e-3
        ),
        "ranker": RankerParameters(factors=16, sweeps=5),
        "user_key": "vitrine",
    }
    return Options(**(fields | changes))


@pytest.fixture(scope="session")
def release_folder(boutique_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Release 1 of the boutique."""
    path = train(options(boutique_folder, tmp_path_factory.mktemp("releases")))
    assert path is not None
    return path


@pytest.fixture
def copied_release(release_folder: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may damage."""
    return Path(shutil.copytree(release_folder, tmp_path / "1"))


@pytest.fixture(scope="session")
def recommender(release_folder: Path) -> Recommender:
    """The pipeline over it."""
    return Recommender(Release.open(release_folder))


@pytest.fixture(scope="session")
def photo(boutique_folder: Path) -> bytes:
    """The picture of item 0004, a dress."""
    return (boutique_folder / "images" / "0004.jpg").read_bytes()


@pytest.fixture(scope="session")
def server(release_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A real server process on the release, and a client of it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    home = tmp_path_factory.mktemp("server")
    environment = {**os.environ, "BENTOML_HOME": str(home), "VITRINE_MAX_BODY_BYTES": str(2 * 1024 * 1024)}
    environment["VITRINE_MAX_PIXELS"] = "4000000"
    command = [sys.executable, "-m", "training", "serve", str(release_folder), "--port", str(port)]
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, cwd=HERE.parent, stdout=log, stderr=log)
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
                _wait_until_ready(client, process, home / "log")
                client.headers["X-Server-Pid"] = str(process.pid)
                yield client
        finally:
            process.terminate()
            process.wait(timeout=30)


def _wait_until_ready(client: httpx.Client, process: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        try:
            if client.get("/readyz").status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.1)
    raise AssertionError(f"the server was not ready within 60 s:\n{log.read_text()}")
