"""From a log to confidences, histories, trends and a ranker."""

import numpy as np
import pandas as pd
import pytest

from training.data.side_information import SideInformation
from training.ranker.fitting import RankerParameters, at_end, confidence_matrix, history_of, train

PARAMETERS = RankerParameters(factors=8, sweeps=10, unobserved=0.1, regularisation=0.01)
CONFIDENCES = {"view": 1.0, "like": 1.5, "cart": 2.0, "purchase": 2.5, "dismiss": 1.0}
DAY = 86_400


def log(*rows: tuple[str, int, str, int]) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=["user_id", "item", "event", "timestamp"]).assign(value=1.0)
    return table.sort_values("timestamp", kind="stable").reset_index(drop=True)


def matrix_of(events: pd.DataFrame, items: int = 3, **changes: object) -> np.ndarray:
    parameters = RankerParameters(confidences=CONFIDENCES, **changes)  # type: ignore[arg-type]
    return confidence_matrix(events, items=items, parameters=parameters)[0].toarray()


def test_confidence_is_that_of_the_strongest_event() -> None:
    """Repeats count once; a purchase says more than a view."""
    events = log(("b", 0, "view", 1), ("b", 0, "purchase", 2), ("b", 0, "view", 3), ("a", 1, "like", 1))
    np.testing.assert_allclose(matrix_of(events), [[0, 1.5, 0], [2.5, 0, 0]])


def test_the_last_word_decides_whether_an_item_was_dismissed() -> None:
    """Bought, then dismissed: dismissed. Dismissed, then bought: liked."""
    events = log(("a", 0, "purchase", 1), ("a", 0, "dismiss", 2), ("a", 1, "dismiss", 1), ("a", 1, "purchase", 2))
    np.testing.assert_allclose(matrix_of(events), [[-1, 2.5, 0]])


def test_confidence_halves_with_age() -> None:
    """Measured from the end of the log."""
    events = log(("a", 0, "view", 0), ("a", 1, "view", 10 * DAY), ("a", 2, "view", 20 * DAY))
    np.testing.assert_allclose(matrix_of(events, half_life=10), [[0.25, 0.5, 1]], rtol=1e-6)


def test_history_is_in_the_order_of_the_last_touch() -> None:
    """An item touched again moves to the end."""
    events = log(
        ("a", 2, "view", 1), ("a", 0, "view", 2), ("a", 1, "view", 3), ("a", 2, "view", 9), ("b", 0, "view", 5)
    )
    matrix, users = confidence_matrix(events, items=3, parameters=PARAMETERS)
    indptr, items, _, times = history_of(events, matrix, users)
    assert indptr.tolist() == [0, 3, 4]
    assert items.tolist() == [0, 1, 2, 0]
    assert times.tolist() == [2, 3, 9, 5]


def test_a_dismissal_is_no_popularity() -> None:
    """Popularity counts users who touched an item, each once."""
    events = log(("a", 0, "view", 1), ("a", 0, "view", 2), ("b", 0, "dismiss", 1), ("b", 1, "view", 2))
    assert at_end(events, items=3).popularity.tolist() == [1, 1, 0]


def test_a_trend_is_what_came_up_of_late() -> None:
    """Of two items touched as often, the later one trends up, the earlier down, and one never touched not at all."""
    early = [(f"u{n}", 0, "view", n) for n in range(50)]
    late = [(f"u{n}", 1, "view", 100 * DAY + n) for n in range(50)]
    found = at_end(log(*early, *late), items=3).trend
    assert found[1] > 0.3 > 0 > found[0]
    assert found[2] == 0


def test_later_touches_go_on_with_the_trend() -> None:
    """What is kept of a log gives the trend of the log that has grown, as if it were counted anew."""
    rng = np.random.default_rng(0)
    events = log(*[(f"u{n}", int(rng.integers(5)), "view", n * DAY // 4) for n in range(200)])
    before, after = at_end(events[:150], items=5), at_end(events, items=5)
    kept, later = before.continued(), events[150:]
    late = before.late * 0.5 ** ((after.at - kept["at"]) / (DAY * kept["half_life"]))
    np.add.at(late, later["item"], 0.5 ** ((after.at - later["timestamp"]) / (DAY * kept["half_life"])))
    ever = before.ever + np.bincount(later["item"], minlength=5)
    scaled = late * (kept["touches"] + len(later)) / late.sum()
    trend = np.log((scaled + kept["smoothing"]) / (ever + kept["smoothing"]))
    np.testing.assert_allclose(trend, after.trend, rtol=1e-5)


def test_stored_factors_are_the_fold_in_of_stored_histories() -> None:
    """A user folded in from the very events that training saw gets the factor that training gave."""
    rng = np.random.default_rng(0)
    events = log(*[(f"u{u}", int(i), "view", t) for u in range(30) for t, i in enumerate(rng.permutation(25)[:8])])
    made = train(events, items=25, parameters=PARAMETERS, user_key="k", quiet=True)
    for row in (0, len(made.users) - 1):
        known = made.ranker.user(row)
        folded = made.ranker.fold_in(known.history, np.ones(len(known.history), np.float32))
        np.testing.assert_allclose(folded, made.arrays["user_factors"][row], atol=1e-4)


def test_a_profile_without_events_has_a_row_of_its_own() -> None:
    """Users of the table are known to the ranker, and have the taste of those who are like them."""
    events = log(*[(f"u{u}", i, "view", i) for u in range(20) for i in range(10) if (u + i) % 2 == 0])
    profiles = tuple([f"u{u}" for u in range(20)] + ["new"])
    told = np.eye(2, dtype=np.float32)[[u % 2 for u in range(20)] + [1]]
    made = train(
        events, items=10, parameters=PARAMETERS, user_key="k", sides=SideInformation(None, told, profiles), quiet=True
    )
    user = made.ranker.user(made.users.index("new"))
    scores = made.ranker.scores(user, np.arange(10))
    assert not len(user.seen)
    assert scores[1::2].min() > scores[::2].max()


@pytest.mark.parametrize(
    "events",
    [
        [("a", 0, "view", 0)],
        [("a", item, "view", item) for item in range(3)],
        [(f"u{user}", 0, "view", user) for user in range(30)],
        [("a", 0, "dismiss", 0)],
    ],
    ids=["one pair", "one user", "an item that everyone touched", "nothing but a dismissal"],
)
def test_the_smallest_logs_train(events: list[tuple[str, int, str, int]]) -> None:
    """Without a warning, and to finite factors."""
    made = train(log(*events), items=3, parameters=PARAMETERS, user_key="k", quiet=True)
    assert np.isfinite(made.arrays["user_factors"]).all()
    assert np.isfinite(made.arrays["item_factors"]).all()
    assert np.isfinite(made.arrays["trend"]).all()
