"""Raw values become the same vectors everywhere."""

import json
import math

import numpy as np
import pytest

from service.recommender.catalogue.features import Features
from training.data.features import learn

TABLE = {
    "category": ["dress", "dress", "hat", "hat", None],
    "tags": [["red", "wool"], ["red"], [], ["wool"], None],
    "price": [10.0, 20.0, 30.0, math.nan, 40.0],
    "sale": [True, False, True, None, False],
    "title": ["Red wool dress", "red dress", "A hat", "wool HAT", ""],
}
KINDS = {"category": "category", "tags": "tags", "price": "number", "sale": "boolean", "title": "text"}


@pytest.fixture
def features() -> Features:
    return learn(TABLE, KINDS)


def block(features: Features, column: str, values: list) -> np.ndarray:
    """The encoded values of one column, by name of their dimension."""
    encoded = features.encode({column: values}, len(values))
    names = features.names()
    return encoded[:, [at for at, name in enumerate(names) if name.partition("=")[0].partition("#")[0] == column]]


def test_categories_become_one_hot(features: Features) -> None:
    """An unknown or missing category is all zeros."""
    assert [name for name in features.names() if name.startswith("category")] == ["category=dress", "category=hat"]
    assert block(features, "category", ["hat", "cape", None]).tolist() == [[0, 1], [0, 0], [0, 0]]


def test_tags_have_unit_length_however_many_there_are(features: Features) -> None:
    """Two tags weigh 0.71 each."""
    np.testing.assert_allclose(
        block(features, "tags", [["red", "wool"], ["wool"], []]), [[0.5**0.5] * 2, [0, 1], [0, 0]]
    )


def test_numbers_are_scaled_and_outliers_bounded(features: Features) -> None:
    """Mean 0, deviation 1; NaN, infinity and text are as if absent; nothing is farther than 3 away."""
    values = block(features, "price", [25.0, 36.18034, 1e9, math.nan, math.inf, "dear", None])[:, 0]
    np.testing.assert_allclose(values, [0, 1, 3, 0, 0, 0, 0], atol=1e-4)


def test_few_whole_numbers_are_codes() -> None:
    """An occupation from 0 to 2 names a group; the age of everyone is a quantity."""
    table = {"occupation": [0.0, 1.0, 2.0] * 20, "age": [float(n) for n in range(60)]}
    learnt = learn(table, {"occupation": "number", "age": "number"})
    assert learnt.names() == ["occupation=0", "occupation=1", "occupation=2", "age"]
    assert learnt.encode({"occupation": [2.0]}, 1)[0].tolist() == [0, 0, 1, 0]


def test_titles_weigh_rare_words_more(features: Features) -> None:
    """Case does not matter, an empty title is zero, and the same words give the same unit vector."""
    same = block(features, "title", ["wool hat", "WOOL, hat!", ""])
    np.testing.assert_allclose(same[0], same[1])
    assert np.linalg.norm(same[0]) == pytest.approx(1)
    assert not same[2].any()
    alone, shared = block(features, "title", ["red dress", "red hat"])
    assert 0 < alone @ shared < 1


def test_what_was_stored_encodes_as_what_was_learnt(features: Features) -> None:
    """Through JSON and back: the same vectors, also for columns that are not there."""
    again = Features.from_json(json.loads(json.dumps(features.to_json())))
    np.testing.assert_array_equal(again.encode(TABLE, 5), features.encode(TABLE, 5))
    assert not again.encode({}, 2).any()
    assert again.width == len(again.names())


def test_columns_that_tell_nothing_are_left_out() -> None:
    """One value for all, one row a value, a constant number, no text."""
    table = {"all": ["a"] * 4, "each": list("abcd"), "same": [1.0] * 4, "none": [None] * 4}
    kinds = {"all": "category", "each": "category", "same": "number", "none": "text"}
    assert learn(table, kinds).columns == ()


def test_a_value_of_few_can_be_left_unnamed() -> None:
    """So that a vocabulary of profiles names nobody."""
    table = {"city": ["Lyon"] * 5 + ["Oslo"] * 2}
    assert learn(table, {"city": "category"}, min_count=5).names() == ["city=Lyon"]
