"""What the log says of liking: names of events, values, ratings, and what is taken back."""

from pathlib import Path

import numpy as np
import pytest

from tests.training.data.folders import ITEMS, NOW, folder_of
from training.data.catalogue import Catalogue
from training.data.catalogue_reader import inspect


def log_of(tmp_path: Path, rows: str) -> Catalogue:
    return inspect(folder_of(tmp_path, items__csv=ITEMS, interactions__csv=rows), now=NOW)


@pytest.mark.parametrize(
    ("name", "event"),
    [("Purchase", "purchase"), ("transaction", "purchase"), ("add_to_cart", "cart"), ("Product Added", "cart"),
     ("addtocart", "cart"), ("view_item", "view"), ("Product Viewed", "view"), ("select-item", "view"),
     ("Order Completed", "purchase"), ("checkout_completed", "purchase"), ("CLICK", "view"), ("AddToWishlist", "like"),
     ("ViewContent", "view"), ("refund", "dismiss")],
)  # fmt: skip
def test_common_names_of_events_are_known(tmp_path: Path, name: str, event: str) -> None:
    """Case and separators do not matter."""
    found = log_of(tmp_path, f"user_id,item_id,event,timestamp\nu,1,{name},{NOW}\n").interactions
    assert found is not None
    assert found["event"].tolist() == [event]


def test_what_an_event_means_is_never_guessed(tmp_path: Path) -> None:
    """Unknown names are unusable rows; names that say nothing of liking are left out and said."""
    rows = "".join(f"u,1,{name},{NOW}\n" for name in ("view", "frobnicate", "frobnicate", "session_start", ""))
    catalogue = log_of(tmp_path, "user_id,item_id,event,timestamp\n" + rows)
    assert catalogue.interactions is not None
    assert catalogue.interactions["event"].tolist() == ["view"]
    assert catalogue.unusable_by_reason() == {
        ("interactions", "unknown event 'frobnicate'"): 2, ("interactions", "neither event nor value"): 1,
    }  # fmt: skip
    assert any("session_start (1)" in note for note in catalogue.notes)


def test_values_give_weights(tmp_path: Path) -> None:
    """More is more; zero and below is a dismissal."""
    rows = "".join(f"u{at},1,{value},{NOW}\n" for at, value in enumerate((1, 10, 100, 0, -3)))
    found = log_of(tmp_path, "user_id,item_id,value,timestamp\n" + rows).interactions
    assert found is not None
    assert found["event"].tolist() == ["", "", "", "dismiss", "dismiss"]
    np.testing.assert_allclose(found["weight"][:3], [0.5, 1.0, 1.5])


def test_ratings_are_recognised_and_said(tmp_path: Path) -> None:
    """Stars count by their place on the scale; as an event `rating` the value is what counts."""
    values = [1, 2, 3, 4, 5, 4, 5, 5, 3, 4]
    rows = "".join(f"u{at},1,rating,{value},{NOW}\n" for at, value in enumerate(values))
    catalogue = log_of(tmp_path, "user_id,item_id,event,value,timestamp\n" + rows)
    assert catalogue.interactions is not None
    np.testing.assert_allclose(catalogue.interactions["weight"][:5], [0.5, 0.8125, 1.125, 1.4375, 1.75])
    assert any("ratings from 1 to 5" in note for note in catalogue.notes)


def test_a_return_is_a_dismissal_and_a_view_of_no_value_a_view(tmp_path: Path) -> None:
    """Beside an event only values below zero take it back."""
    rows = f"u,1,purchase,-1,{NOW}\nv,1,view,0,{NOW}\nw,1,view,,{NOW}\n"
    found = log_of(tmp_path, "user_id,item_id,event,value,timestamp\n" + rows).interactions
    assert found is not None
    assert found["event"].tolist() == ["dismiss", "view", "view"]
    assert found["weight"].tolist() == [1, 1, 1]
