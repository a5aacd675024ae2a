"""The measures, on rankings small enough to compute by hand; the split in time."""

import numpy as np
import pandas as pd
import pytest

from service.errors import CatalogueError
from training.data import split
from training.measures import auc, gini, hits_of, interval, list_measures, median_interval, recall_curve, top

RANKED = np.array([[3, 1, 2], [5, 4, -1]])
RELEVANT = [np.array([1, 9]), np.array([5, 4, 6])]
SIZES = np.array([2, 3])


def measured(name: str, k: int) -> list[float]:
    return list_measures(hits_of(RANKED, RELEVANT), SIZES, k)[f"{name}_at_{k}"].tolist()


def test_recall_divides_by_what_could_be_hit() -> None:
    """hits / min(k, number of relevant items)."""
    assert measured("recall", 2) == [0.5, 1.0]
    assert measured("recall", 1) == [0.0, 1.0]
    assert measured("recall", 3) == [0.5, pytest.approx(2 / 3)]


def test_ndcg_discounts_by_rank() -> None:
    """A hit at rank 2 of two possible gives 0.63 / 1.63."""
    discount = 1 / np.log2(3)
    assert measured("ndcg", 3)[0] == pytest.approx(discount / (1 + discount))
    assert measured("ndcg", 2)[1] == pytest.approx(1)


def test_the_other_measures_of_a_list() -> None:
    """Precision, F1, average precision, the inverse rank of the first hit, whether there was one."""
    assert measured("precision", 2) == [0.5, 1.0]
    assert measured("f1", 3) == [pytest.approx(0.4), pytest.approx(2 / 3)]
    assert measured("map", 3) == [0.25, pytest.approx(2 / 3)]
    assert measured("mrr", 3) == [0.5, 1.0]
    assert measured("hit_rate", 1) == [0.0, 1.0]


def test_a_curve_is_recall_at_every_depth() -> None:
    """Its points are the measure itself."""
    expected = [np.mean(measured("recall", k)) for k in (1, 2, 3)]
    assert recall_curve(hits_of(RANKED, RELEVANT), SIZES) == pytest.approx(expected)


def test_auc_is_the_chance_to_be_above_another() -> None:
    """One of four pairs is wrong, one is tied; without both kinds there is none."""
    assert auc(np.array([3.0, 1.0, 2.0, 1.0]), np.array([True, True, False, False])) == pytest.approx(2.5 / 4)
    assert np.isnan(auc(np.ones(2), np.array([True, True])))


def test_gini_says_how_unevenly_items_are_shown() -> None:
    """0 where all are shown as often, 1 - 1/n where one of n is."""
    assert gini(np.array([5, 5, 5, 5])) == pytest.approx(0)
    assert gini(np.array([0, 0, 0, 9])) == pytest.approx(0.75)


def test_top_orders_ties_by_row_and_pads() -> None:
    """What may not be answered is -1."""
    assert top(np.array([[1.0, 2.0, 2.0, -np.inf]]), 4).tolist() == [[1, 2, 0, -1]]


def test_an_interval_encloses_the_mean() -> None:
    """And is narrow where there is much data."""
    values = np.random.default_rng(0).random(2000)
    low, high = interval(values)
    assert low < values.mean() < high
    assert high - low < 0.04


def test_the_future_never_teaches() -> None:
    """The cut is in time: the last tenth by default, or from a moment on."""
    log = events(*[("u", n, n) for n in range(100)])
    cut = split.at(log, None)
    assert len(cut.test) == 10
    assert cut.train["timestamp"].max() < cut.cutoff <= cut.test["timestamp"].min()
    assert len(split.at(log, 50).test) == 50
    with pytest.raises(CatalogueError, match="--test-from must be later"):
        split.at(log, 0)


def events(*rows: tuple[str, int, int]) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=["user_id", "item", "timestamp"]).assign(event="view")
    return table.sort_values("timestamp", kind="stable").reset_index(drop=True)


def test_only_new_pairs_of_known_users_and_items_are_asked() -> None:
    """Users with 5 items, items with 10 users, pairs that training has not seen."""
    rows = [(f"u{u}", i, 0) for u in range(10) for i in range(5)] + [("new", 0, 5), ("u0", 0, 5), ("u0", 7, 5)]
    rows += [(f"u{u}", 6, 0) for u in range(1, 10)] + [("late", 6, 0), ("u0", 6, 5)]
    held = split.warm(split.at(events(*rows), 5), items=8)
    assert held.users == ["u0"]
    assert held.relevant[0].tolist() == [6]


def test_what_is_new_is_asked_apart() -> None:
    """An item that nobody touched before the cut, for known users; a user without history, for known items."""
    rows = [(f"u{u}", i, 0) for u in range(10) for i in range(3)] + [("new", 0, 5), ("u0", 3, 5), ("new", 3, 5)]
    cut = split.at(events(*rows), 5)
    items, users = split.cold_items(cut, items=4), split.cold_users(cut, items=4)
    assert (items.users, items.relevant[0].tolist(), np.flatnonzero(items.candidates).tolist()) == (["u0"], [3], [3])
    assert (users.users, users.relevant[0].tolist()) == (["new"], [0])


def test_leave_one_out_holds_out_the_last_new_item_of_each() -> None:
    """All that a user did with it; somebody with one item keeps it."""
    log = events(("a", 0, 1), ("a", 1, 2), ("a", 2, 3), ("a", 0, 4), ("a", 2, 5), ("b", 2, 9))
    cut = split.make(log, "leave-one-out")
    assert cut.test[["user_id", "item"]].to_numpy().tolist() == [["a", 2], ["a", 2]]
    assert split.warm(cut, items=3).relevant[0].tolist() == [2]
    assert len(cut.train) == 4


def test_cold_items_holds_out_all_about_some_items() -> None:
    """No event of a cold item is left to train on, and the same seed holds out the same."""
    log = events(*[(f"u{u}", i, u) for u in range(5) for i in range(20)])
    cut = split.make(log, "cold-items", seed=1)
    assert set(cut.train["item"]).isdisjoint(cut.test["item"])
    assert cut.test["item"].nunique() == 2
    assert split.make(log, "cold-items", seed=1).test.equals(cut.test)


def test_the_interval_of_a_median_holds_it() -> None:
    """In 95 of 100 samples, within some; it narrows with more of them."""
    rng = np.random.default_rng(0)
    held = [low <= 1 <= high for low, high in (median_interval(rng.exponential(1 / np.log(2), 60)) for _ in range(400))]
    assert 0.92 <= np.mean(held) <= 0.99
    few, many = (np.ptp(median_interval(rng.normal(size=n))) for n in (60, 6000))
    assert many < few / 5
