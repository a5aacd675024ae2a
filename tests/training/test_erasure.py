"""A user who was erased is in no file of a release that is made after."""

import shutil
from pathlib import Path

import pandas as pd
import pytest

from service.live.operations import AddEvents, EraseUser, NewEvent
from service.live.store import Store
from service.recommender.pipeline import Recommender
from service.recommender.release import Release
from service.recommender.user_keys import erasure_mark, hash_user
from tests.conftest import made_once
from tests.quick import options
from tests.shop import Shop
from tests.stored_text import READERS
from training.data.catalogue_reader import read
from training.evaluation.evaluate import evaluate
from training.live.export import export
from training.pipeline import train
from training.ranker.fitting import RankerParameters

pytestmark = pytest.mark.slow  # it trains several releases

KEY = "a secret of the test"
GONE, BACK = "00007", "00008"  # erased; erased, and there again


@pytest.fixture(scope="module")
def made(trained_shop: Shop, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store, what is exported of it, and release 1 of that."""

    def make(folder: Path) -> None:
        store = Store.open(str(folder / "store.db"))
        gone, back = hash_user(GONE, KEY), hash_user(BACK, KEY)
        new = hash_user("new", KEY)
        items = pd.read_csv(trained_shop.catalogue / "items.csv", dtype=str)["item_id"]
        last = pd.read_csv(trained_shop.catalogue / "interactions.csv")["timestamp"].astype(float).median()
        store.write([AddEvents([NewEvent(who, items[3], "view", None, last) for who in (gone, new)])])
        store.write([EraseUser(who, erasure_mark(who)) for who in (gone, back)])
        store.write([AddEvents([NewEvent(back, items[5], "like", None, last)])])
        export(store, trained_shop.catalogue, folder / "catalogue", user_key=KEY)
        train(
            options(
                folder / "catalogue", folder / "releases", user_key=KEY, ranker=RankerParameters(factors=8, sweeps=3)
            )
        )

    return made_once(tmp_path_factory, "erasure", make)


def users_of(release: Path) -> list[str]:
    """The keys that it knows."""
    return pd.read_parquet(release / "ranker" / "users.parquet")["user"].tolist()


def test_no_file_of_the_release_names_the_user(made: Path) -> None:
    """Neither by id nor by key, however the file is coded."""
    key = hash_user(GONE, KEY)
    files = [path for path in (made / "releases" / "1").rglob("*") if path.is_file()]
    assert len(files) > 15
    assert not [
        path for path in files if key in READERS[path.suffix](path) or f'"{GONE}"' in READERS[path.suffix](path)
    ]


def test_others_are_there_and_what_came_later(made: Path) -> None:
    """Users of the folder by the keys that their ids have, users of the store, and one who came back."""
    known = users_of(made / "releases" / "1")
    assert hash_user(GONE, KEY) not in known
    assert {hash_user(user, KEY) for user in ("00001", "new", BACK)} <= set(known)
    release = Release.open(made / "releases" / "1")
    assert release.ranker is not None
    row = release.ranker.user_row(hash_user(BACK, KEY))
    assert row is not None
    assert len(release.ranker.user(row).history) == 1


def test_the_manifest_says_what_of_the_store_it_holds(made: Path) -> None:
    """Its id, and the number of the last change."""
    store = Store.open(str(made / "store.db"))
    said = Release.open(made / "releases" / "1").manifest.data
    assert (said["store"], said["sequence"]) == (store.id, store.position())


def test_users_are_asked_about_by_their_keys(made: Path, tmp_path: Path) -> None:
    """What is measured on the exported folder is what the same people get by their ids."""
    recommender = Recommender(Release.open(made / "releases" / "1"), user_key=KEY)
    by_key = evaluate(recommender, read(made / "catalogue")).metrics["ranking"]
    shutil.copytree(made / "catalogue", tmp_path / "anonymous")
    log = pd.read_parquet(tmp_path / "anonymous" / "interactions.parquet")
    log.assign(user_key="nobody-" + log["user_key"]).to_parquet(tmp_path / "anonymous" / "interactions.parquet")
    unknown = evaluate(recommender, read(tmp_path / "anonymous")).metrics["ranking"]
    assert by_key["ndcg_at_20"] > unknown["ndcg_at_20"]
