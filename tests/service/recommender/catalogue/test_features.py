"""What a new item's factor rests on is what training made of the others."""

import json
from pathlib import Path

import numpy as np
import pytest

from service.recommender.catalogue.features import Features, item_features
from service.recommender.release import Release
from training.data.catalogue_reader import read
from training.data.side_information import SideInformation, know
from training.ranker import fitting
from training.ranker.fitting import RankerParameters

UNTOUCHED = 7  # an item


@pytest.fixture(scope="module")
def served(release_folder: Path) -> np.ndarray:
    """(items, d): f_i of every item of a release, from what serving knows of it."""
    release = Release.open(release_folder)
    features = Features.from_json(json.loads((release_folder / "features.json").read_text())["item_features"])
    vectors = np.load(release_folder / "vectors.npy")
    columns = {name: release.items.column(name) for name in ("title", "category", *release.items.kinds)}

    def of(row: int) -> np.ndarray:
        attributes = {name: values[row] for name, values in columns.items()}
        vector = vectors[row] if release.items.pictured[row] else None
        return item_features(features, attributes, vector, dim=vectors.shape[1])

    return np.array([of(row) for row in range(len(release.items))])


def test_an_item_has_the_features_that_training_gave_it(
    served: np.ndarray, release_folder: Path, boutique_folder: Path
) -> None:
    """To the bit, for every item of a release."""
    vectors = np.load(release_folder / "vectors.npy")
    known, _ = know(read(boutique_folder), None, None, vectors, exclude=None)
    assert known.sides.items is not None
    np.testing.assert_array_equal(served, known.sides.items)


def test_the_factor_of_an_item_that_nobody_touched_is_its_prior(served: np.ndarray, boutique_folder: Path) -> None:
    """W f_i."""
    catalogue = read(boutique_folder)
    assert catalogue.interactions is not None
    log = catalogue.interactions[catalogue.interactions["item"] != UNTOUCHED]
    made = fitting.train(
        log,
        items=len(served),
        parameters=RankerParameters(factors=16, sweeps=3),
        user_key="key",
        sides=SideInformation(served),
        quiet=True,
        beside=False,
    )
    prior, factors = made.arrays["item_prior"], made.arrays["item_factors"]
    assert np.abs(factors[UNTOUCHED]).max() > 0
    np.testing.assert_allclose(served[UNTOUCHED] @ prior, factors[UNTOUCHED], atol=1e-5)


def test_what_is_not_known_of_an_item_counts_as_nothing() -> None:
    """Neither a picture nor a column."""
    assert item_features(Features(()), {"colour": "red"}, None, dim=3).tolist() == [0, 0, 0]
