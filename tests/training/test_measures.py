"""The measures, on rankings small enough to compute by hand; the split in time."""

import numpy as np
import pandas as pd
import pytest

from service.errors import CatalogueError
from training import split
from training.measures import interval, ndcg_at, recall_at, top

RANKED = np.array([[3, 1, 2], [5, 4, -1]])
RELEVANT = [np.array([1, 9]), np.array([5, 4, 6])]


def test_recall_divides_by_what_could_be_hit() -> None:
    """hits / min(k, number of relevant items)."""
    assert recall_at(RANKED, RELEVANT, 2).tolist() == [0.5, 1.0]
    assert recall_at(RANKED, RELEVANT, 1).tolist() == [0.0, 1.0]
    assert recall_at(RANKED, RELEVANT, 3).tolist() == [0.5, pytest.approx(2 / 3)]


def test_ndcg_discounts_by_rank() -> None:
    """A hit at rank 2 of two possible gives 0.63 / 1.63."""
    discount = 1 / np.log2(3)
    assert ndcg_at(RANKED, RELEVANT, 3)[0] == pytest.approx(discount / (1 + discount))
    assert ndcg_at(RANKED, RELEVANT, 2)[1] == pytest.approx(1)


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
    log = pd.DataFrame({"user_id": ["u"] * 100, "item": range(100), "timestamp": range(100)})
    cut = split.at(log, None)
    assert len(cut.test) == 10
    assert cut.train["timestamp"].max() < cut.cutoff <= cut.test["timestamp"].min()
    assert len(split.at(log, 50).test) == 50
    with pytest.raises(CatalogueError, match="--test-from must be later"):
        split.at(log, 0)


def test_only_new_pairs_of_known_users_and_items_are_asked() -> None:
    """Users with 5 items, items with 10 users, pairs that training has not seen."""
    rows = [(f"u{u}", i, 0) for u in range(10) for i in range(5)] + [("new", 0, 5), ("u0", 0, 5), ("u0", 7, 5)]
    rows += [(f"u{u}", 6, 0) for u in range(1, 10)] + [("late", 6, 0), ("u0", 6, 5)]
    cut = split.at(pd.DataFrame(rows, columns=["user_id", "item", "timestamp"]).sort_values("timestamp"), 5)
    held = split.held_out(cut, items=8)
    assert held.users == ["u0"]
    assert held.relevant[0].tolist() == [6]
