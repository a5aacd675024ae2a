"""Filters on attributes: a list is any of, an object a range, a value equality."""

import numpy as np
import pyarrow as pa
import pytest

from service.errors import BadQuery, NotFound
from service.recommender.catalogue.items import PICTURED, POPULARITY, Items

KINDS = {"category": "category", "price": "number", "available": "boolean", "tags": "tags"}


@pytest.fixture
def items() -> Items:
    table = pa.table({
        "item_id": ["007", "7", "a/b", "d"],
        "title": ["", "seven", "", ""],
        "category": pa.array(["dress", "skirt", None, "dress"]),
        "price": [10.0, 20.0, float("nan"), 30.0],
        "available": pa.array([True, False, None, True]),
        "tags": pa.array([["red", "new"], [], ["red"], ["blue"]], pa.list_(pa.string())),
        POPULARITY: [5, 9, 0, 5],
        PICTURED: [True, True, False, True],
    })  # fmt: skip
    return Items(table, KINDS)


@pytest.mark.parametrize(
    ("filter", "passing"),
    [
        ({"category": ["dress"]}, [0, 3]),
        ({"category": "skirt"}, [1]),
        ({"category": ["dress", "skirt"]}, [0, 1, 3]),
        ({"category": []}, []),
        ({"price": {"min": 20}}, [1, 3]),
        ({"price": {"min": 10, "max": 20}}, [0, 1]),
        ({"price": [10]}, [0]),
        ({"available": True}, [0, 3]),
        ({"tags": ["red", "blue"]}, [0, 2, 3]),
        ({"tags": "red", "category": ["dress"]}, [0]),
        ({"category": ["hat"]}, []),
    ],
)
def test_a_filter_passes_what_it_says(items: Items, filter: dict, passing: list[int]) -> None:
    """All conditions must hold; what an item does not say, it does not pass."""
    mask = items.mask(filter)
    assert mask is not None
    assert np.flatnonzero(mask).tolist() == passing


def test_no_filter_is_no_mask(items: Items) -> None:
    """An empty filter costs nothing."""
    assert items.mask({}) is None


@pytest.mark.parametrize(
    "filter",
    [
        {"size": ["M"]},
        {"category": {"min": 1}},
        {"price": {"min": "1"}},
        {"price": {"above": 1}},
        {"price": {}},
        {"price": ["ten"]},
        {"price": [True]},
        {"price": [10**400]},
        {"price": {"max": 10**400}},
        {"available": "yes"},
        {"category": [1]},
        {"tags": None},
    ],
)
def test_a_filter_that_makes_no_sense_is_refused(items: Items, filter: dict) -> None:
    """The error names the column, and what was expected of it."""
    with pytest.raises(BadQuery, match=next(iter(filter))) as refused:
        items.mask(filter)
    assert refused.value.field == "filter"


def test_ids_stay_what_they_look_like(items: Items) -> None:
    """007 and 7 are two items."""
    assert (items.row("007"), items.row("7"), items.row("a/b")) == (0, 1, 2)
    with pytest.raises(NotFound, match="no item '07'"):
        items.row("07")


def test_what_an_item_does_not_say_is_none(items: Items) -> None:
    """Not NaN, which JSON cannot say."""
    assert items.describe(2)["attributes"] == {"price": None, "available": None, "tags": ["red"]}


def test_popular_items_come_first_and_ties_in_row_order(items: Items) -> None:
    """The order of popularity is the same in every process."""
    assert items.most_popular(4).tolist() == [1, 0, 3, 2]


def test_each_item_has_the_number_of_its_first_category() -> None:
    """From 1 on, equal for equal ones; 0 for an item without, also where a category is a list."""
    for values, kind in (
        ([["a", "b"], [], None, ["b"], ["a"]], pa.list_(pa.string())),
        (["a", None, None, "b", "a"], None),
    ):
        columns = {"item_id": list("12345"), "category": pa.array(values, kind)}
        table = pa.table({**columns, POPULARITY: [0] * 5, PICTURED: [True] * 5})
        assert Items(table, {}).categories().tolist() == [1, 0, 0, 2, 1]
