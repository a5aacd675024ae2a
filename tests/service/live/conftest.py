"""Stores, and a release with a store beside it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from service.live.store import Store
from service.recommender.pipeline import Recommender
from tests.service.live.live_shop import Shop


@pytest.fixture(params=["sqlite", "postgresql"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty store, of each kind in turn."""
    if request.param == "sqlite":
        return str(tmp_path / "store" / "live.db")
    return str(request.getfixturevalue("postgres_server").database())


@pytest.fixture
def store(store_url: str) -> Iterator[Store]:
    """The same, open."""
    opened = Store.open(store_url)
    yield opened
    opened.close()


@pytest.fixture
def shop(release_folder: Path, boutique_folder: Path, recommender: Recommender, tmp_path: Path) -> Iterator[Shop]:
    """The boutique, unchanged."""
    store = Store.open(str(tmp_path / "live.db"))
    yield Shop(release_folder, store, boutique_folder / "images", recommender.encoder)
    store.close()
