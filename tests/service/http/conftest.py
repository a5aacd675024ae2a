"""A service with a store, and who may do everything there."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.live import keeping
from tests.processes import Service, serve


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the store lies."""
    return tmp_path_factory.mktemp("live")


@pytest.fixture(scope="module")
def live(release_folder: Path, folder: Path) -> Iterator[Service]:
    """A service with a store and both keys."""
    settings = {**keeping(str(folder / "store" / "live.db")), "VITRINE_MAX_PIXELS": "4000000"}
    with serve(release_folder, folder / "home", settings) as started:
        yield started
        assert "Traceback" not in started.log.read_text()


@pytest.fixture
def client(live: Service) -> httpx.Client:
    """One who may do everything."""
    return live.http
