"""Two releases side by side: what differs in them, and what they answer."""

import shutil
from pathlib import Path

from service.recommender.user_keys import DEFAULT_USER_KEY
from tests.shop import Shop
from training.data.catalogue_reader import read
from training.evaluation.diff import Figure, compare


def test_diff_shows_the_same_queries_answered_by_both(shop: Shop, tmp_path: Path) -> None:
    """Sorted by how much changed; a release and itself differ in nothing."""
    page = tmp_path / "diff.html"
    found = compare(shop.releases / "1", shop.releases / "2", page, user_key=DEFAULT_USER_KEY)
    assert 0 < found.overlap < 1
    assert {"data.fingerprint", "rows.interactions"} <= {change.name for change in found.changes}
    assert "Release 1 and release 2" in page.read_text()
    assert found.figures == []
    assert not [change.name for change in found.changes if change.name.startswith("metrics")]
    shutil.copytree(shop.releases / "1", tmp_path / "1")
    same = compare(shop.releases / "1", tmp_path / "1", page, user_key=DEFAULT_USER_KEY)
    assert same.changes == []
    assert same.overlap == 1


def test_diff_asks_both_releases_what_was_held_out_of_both(trained_shop: Shop, tmp_path: Path) -> None:
    """As the gate does: the one of shuffled labels is far behind, the one of more data is not."""
    today = read(trained_shop.catalogue)

    def difference(first: int, second: int) -> Figure:
        folders = [trained_shop.releases / str(number) for number in (first, second)]
        found = compare(*folders, tmp_path / "diff.html", user_key=DEFAULT_USER_KEY, catalogue=today)
        figures = {figure.name: figure for figure in found.figures}
        assert "questions" in (tmp_path / "diff.html").read_text()
        return figures["warm.ndcg_at_10"]

    better, spoilt, same = difference(1, 2), difference(2, 3), difference(2, 2)
    assert better.second == spoilt.first  # the same questions, whatever else was compared
    assert spoilt.interval[1] < 0 < better.second
    assert (same.difference, same.interval) == (0, [0, 0])
