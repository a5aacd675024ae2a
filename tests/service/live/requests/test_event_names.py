"""What the names of events mean."""

import pytest

from service.live.requests.event_names import RATED, SILENT, meaning


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("view", "view"), ("Add to Cart", "cart"), ("add_to_cart", "cart"), ("addToCart", "cart"),
        ("order completed", "purchase"), ("Not interested", "dismiss"), ("rating", RATED), ("page_view", SILENT),
        ("teleport", ""), ("", ""),
    ],
)  # fmt: skip
def test_a_name_has_one_meaning_whatever_its_case_and_separators(name: str, meant: str) -> None:
    """A name that is not known means nothing."""
    assert meaning(name) == meant
