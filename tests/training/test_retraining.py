"""A training that goes on from an earlier release makes again only what is new."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from service.errors import CatalogueError
from service.recommender.golden import prove
from service.recommender.pipeline import Recommender
from service.recommender.release import Release, list_files
from tests.conftest import made_once
from tests.quick import options
from training.index import catalogue_vectors
from training.pipeline import train
from training.stage_cache import StageCache
from training.stages.continued import ContinuedRun, open_run
from training.stages.run import Run

pytestmark = pytest.mark.slow  # it trains several releases

NEW = 3  # items that come


@pytest.fixture(scope="module")
def shop(boutique_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The boutique without its last items: `first`, release 1 of it, and all of it: `today`."""

    def make(folder: Path) -> None:
        today = Path(shutil.copytree(boutique_folder, folder / "today"))
        first = Path(shutil.copytree(today, folder / "first"))
        items = pd.read_csv(first / "items.csv", dtype=str, keep_default_na=False)
        kept = items.iloc[:-NEW]
        kept.to_csv(first / "items.csv", index=False)
        log = pd.read_csv(first / "interactions.csv", dtype=str, keep_default_na=False)
        times = log["timestamp"].astype(float)
        early = log["item_id"].isin(kept["item_id"]) & (times < times.quantile(0.95))
        log[early].to_csv(first / "interactions.csv", index=False)
        assert train(options(first, folder / "releases", choose=True)) == folder / "releases" / "1"

    return made_once(tmp_path_factory, "retraining", make)


@pytest.fixture(scope="module")
def retrained(shop: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The release that goes on from release 1, with the items that came."""

    def make(folder: Path) -> None:
        asked = options(shop / "today", folder / "releases", previous=shop / "releases" / "1", choose=True)
        assert train(asked) == folder / "releases" / "1"

    return made_once(tmp_path_factory, "retrained", make) / "releases" / "1"


def test_encoder_and_vectors_are_kept_to_the_bit(shop: Path, retrained: Path) -> None:
    """Those of the items that were there; a new one has what the same encoder makes of its picture."""
    before, after = Release.open(shop / "releases" / "1"), Release.open(retrained)
    assert after.manifest.encoder == before.manifest.encoder
    old, new = (np.load(release.path / "vectors.npy") for release in (before, after))
    rows = [after.items.row(item) for item in before.items.ids]
    assert old.tobytes() == new[rows].tobytes()
    catalogue = shop / "today" / "images"
    item = after.items.ids[-1]
    [made] = Recommender(before).embed([(catalogue / f"{item}.jpg").read_bytes()])
    np.testing.assert_allclose(new[-1], made, atol=1e-5)


def test_only_new_pictures_are_embedded(shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as items came."""
    looked: list[int] = []
    look = catalogue_vectors._look
    monkeypatch.setattr(
        catalogue_vectors, "_look", lambda c, p, places, e: (looked.extend(places), look(c, p, places, e))[1]
    )
    asked = options(shop / "today", tmp_path, previous=shop / "releases" / "1")
    train(replace(asked, only=None))
    assert len(looked) == NEW


def test_it_serves_and_says_what_it_kept(shop: Path, retrained: Path) -> None:
    """Its golden queries give the recorded answers; the manifest names the release, and what was decided."""
    release = Release.open(retrained)
    prove(Recommender(release))
    kept = release.manifest.training["kept"]
    assert (kept["release"], kept["encoder"], kept["verdict"]["kept"]) == (1, True, True)
    assert "too few" in kept["verdict"]["why"]
    before = Release.open(shop / "releases" / "1").manifest.training
    assert release.manifest.training["encoder"] == before["encoder"]
    for name in ("unobserved", "regularisation"):
        assert release.manifest.training["ranker"][name] == before["ranker"][name]


def test_it_recommends_as_well_as_one_that_was_trained_anew(shop: Path, retrained: Path, tmp_path: Path) -> None:
    """Beyond chance, on what both were not taught."""
    anew = train(options(shop / "today", tmp_path))
    assert anew is not None
    found = [json.loads((path / "report" / "metrics.json").read_text())["ranking"] for path in (anew, retrained)]
    assert found[1]["ndcg_at_20"] >= found[0]["ndcg_at_20_interval"][0]


def opened(shop: Path, catalogue: Path, folder: Path, **changes: object) -> Run:
    """The run that a training would be, before it trains."""
    asked = options(catalogue, folder, **({"previous": shop / "releases" / "1"} | changes))
    return open_run(asked, StageCache(folder / ".stages"), None)


@pytest.fixture(scope="module")
def strange(shop: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Today's catalogue with many dresses that are nothing but noise."""

    def make(folder: Path) -> None:
        shutil.copytree(shop / "today", folder / "shop")
        rng = np.random.default_rng(0)
        items = pd.read_csv(folder / "shop" / "items.csv", dtype=str, keep_default_na=False)
        row = items[items["category"] == "dress"].iloc[0]
        rows = []
        for number in range(30):
            name = f"images/noise{number}.png"
            Image.fromarray(rng.integers(256, size=(64, 64, 3), dtype=np.uint8)).save(folder / "shop" / name)
            rows.append(row.to_dict() | {"item_id": f"noise{number}", "image": name})
        pd.concat([items, pd.DataFrame(rows)]).to_csv(folder / "shop" / "items.csv", index=False)

    return made_once(tmp_path_factory, "strange", make) / "shop"


def test_an_encoder_that_does_not_know_what_came_is_trained_anew(shop: Path, strange: Path, tmp_path: Path) -> None:
    """The figures say so; who names the release keeps it all the same."""
    run = opened(shop, strange, tmp_path)
    assert not isinstance(run, ContinuedRun)
    assert run.kept is not None
    verdict = run.kept["verdict"]
    assert not verdict["kept"]
    assert verdict["new"] < 0.9 * verdict["old"]
    assert verdict["interval"][1] < 0
    assert isinstance(opened(shop, strange, tmp_path, keep_encoder=True), ContinuedRun)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"new_encoder": "--epochs 9 asks for another"}, "--epochs 9"),
        ({"split_column": "colour"}, "--split-column"),
        ({"test_from": 1}, "held out"),
    ],
)
def test_an_encoder_that_cannot_be_kept_is_refused_with_the_reason(
    shop: Path, tmp_path: Path, changes: dict, why: str
) -> None:
    """Where somebody asked for it."""
    if "test_from" in changes:  # a day after the first event
        log = pd.read_csv(shop / "today" / "interactions.csv")
        changes = {"test_from": int(log["timestamp"].min()) + 86_400}
    with pytest.raises(CatalogueError, match=why):
        opened(shop, shop / "today", tmp_path, keep_encoder=True, **changes)


def test_a_release_that_does_not_say_which_pictures_it_holds_keeps_its_encoder(shop: Path, tmp_path: Path) -> None:
    """Every picture is embedded again."""
    old = Path(shutil.copytree(shop / "releases" / "1", tmp_path / "old" / "1"))
    shutil.rmtree(old / "retraining")
    manifest = json.loads((old / "manifest.json").read_text())
    del manifest["index"]["new_since_calibration"]
    (old / "manifest.json").write_text(json.dumps({**manifest, "files": list_files(old)}))
    path = train(options(shop / "today", tmp_path / "releases", previous=old))
    assert path is not None
    release = Release.open(path)
    assert release.manifest.encoder == Release.open(old).manifest.encoder
    assert len(np.load(path / "retraining" / "picture_digests.npy")) == release.manifest.rows["pictured"]
