"""A training that goes on from an earlier release makes again only what is new."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from service.recommender.golden import prove
from service.recommender.pipeline import Recommender
from service.recommender.release import Release
from tests.conftest import made_once
from tests.quick import options
from training.index import catalogue_vectors
from training.pipeline import train

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
