"""Small real things that tests share: a drawn boutique, a release trained on it, a server process."""

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from filelock import FileLock

from service.recommender.pipeline import Recommender
from service.recommender.release import Release
from tests import colours
from tests.postgres import Postgres, postgres
from tests.processes import Service, serve
from tests.quick import options
from tests.shop import Shop, open_shop
from training.demo import boutique
from training.pipeline import train


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """A folder that the first test process to need it makes, and that all of them read."""
    own = factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / name
    made = folder.with_suffix(".made")
    with FileLock(folder.with_suffix(".lock")):
        if not made.exists():
            shutil.rmtree(folder, ignore_errors=True)  # of a process that was ended
            folder.mkdir()
            make(folder)
            made.touch()
    return folder


@pytest.fixture(scope="session")
def boutique_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A catalogue of 144 garments and 200 users."""
    return made_once(
        tmp_path_factory, "boutique", lambda folder: boutique.write(folder, items=144, shoppers=200, seed=7)
    )


@pytest.fixture(scope="session")
def release_folder(boutique_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Release 1 of the boutique."""
    return made_once(tmp_path_factory, "releases", lambda folder: train(options(boutique_folder, folder))) / "1"


@pytest.fixture(scope="session")
def releases(release_folder: Path, boutique_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Release 1, release 2 with another ranker, and release 3, which is damaged."""

    def three(folder: Path) -> None:
        shutil.copytree(release_folder.parent, folder, dirs_exist_ok=True)
        asked = options(boutique_folder, folder)
        path = train(replace(asked, ranker=replace(asked.ranker, factors=8, regularisation=0.5)))
        assert path is not None
        assert path.name == "2"
        shutil.copytree(path, folder / "3")
        (folder / "3" / "items.parquet").write_bytes(b"damaged")

    return made_once(tmp_path_factory, "several", three)


@pytest.fixture(scope="session")
def colour_release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Release 1 of a shop whose photos are told apart without error."""
    return made_once(tmp_path_factory, "colours", colours.make_release) / "releases" / "1"


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
def service(release_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A real service process on the release."""
    limits = {"VITRINE_MAX_BODY_BYTES": str(2 * 1024 * 1024), "VITRINE_MAX_PIXELS": "4000000"}
    with serve(release_folder, tmp_path_factory.mktemp("server"), limits) as started:
        started.http.headers["X-Server-Pid"] = str(started.process.pid)
        yield started


@pytest.fixture(scope="session")
def server(service: Service) -> httpx.Client:
    """A client of it."""
    return service.http


@pytest.fixture(scope="session")
def trained_shop(boutique_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """A shop without pictures and its three releases, which tests may read."""
    folder = made_once(tmp_path_factory, "shop", lambda made: open_shop(boutique_folder, made, pictures=False))
    return Shop(folder / "today", folder / "releases")


@pytest.fixture
def shop(trained_shop: Shop, tmp_path: Path) -> Shop:
    """A copy of it that a test may change."""
    return trained_shop.copy(tmp_path)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Postgres]:
    """A real PostgreSQL."""
    with postgres() as started:
        yield started
