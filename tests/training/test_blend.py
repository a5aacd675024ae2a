"""The weights of the final sum, and the search for parameters, on logs whose answer is known."""

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from service.errors import CatalogueError
from training import blend, tune
from training.blend import Choice
from training.ranker import RankerParameters, Sides
from training.sides import Known

DAY = 86_400
NOTHING = Known(Sides())
PARAMETERS = RankerParameters(factors=8, sweeps=6)
SEEN = [f"{number:016x}" for number in range(600)]  # what happened in a log


def log(*, users: int = 60, items: int = 40, days: int = 20, fashion: bool = False) -> pd.DataFrame:
    """Users touch items of their own parity, one a day; with `fashion` only those that are new that week."""
    rng = np.random.default_rng(0)
    rows = []
    for user in range(users):
        for day in range(days):
            pool = np.arange(user % 2, items, 2)
            if fashion:
                pool = pool[(pool // 4) == day // 2]
            rows.append((f"u{user}", int(rng.choice(pool)), "view", day * DAY + user))
    table = pd.DataFrame(rows, columns=["user_id", "item", "event", "timestamp"]).assign(value=1.0)
    return table.sort_values("timestamp", kind="stable").reset_index(drop=True)


def test_the_term_that_decides_gets_the_weight() -> None:
    """What was chosen is what `tells` says; `noise` says nothing, and `against` says the contrary."""
    rng = np.random.default_rng(0)
    choices = []
    for _ in range(200):
        chosen = np.arange(50) < 3
        tells = chosen + rng.normal(0, 0.3, 50)
        choices.append(Choice({"tells": tells, "noise": rng.normal(size=50), "against": -0.2 * tells}, chosen))
    weights, reached = blend.fit(choices)
    assert reached > 0.95
    assert weights["tells"] - 0.2 * weights["against"] > 10 * abs(weights["noise"])


def test_a_term_that_some_lack_counts_nothing_for_them() -> None:
    """Shoppers without a price history have no price_fit."""
    with_it = Choice({"a": np.array([1.0, 0.0]), "b": np.array([1.0, 0.0])}, np.array([True, False]))
    without = Choice({"a": np.array([1.0, 0.0, 0.0])}, np.array([True, False, False]))
    weights, reached = blend.fit([with_it, without])
    assert set(weights) == {"a", "b"}
    assert reached == 1


def test_each_shoppers_last_day_is_looked_at_from_before_it() -> None:
    """The ranker of the lessons has not seen it; the latter half of the shoppers is asked."""
    table = log()
    lessons = blend.look_ahead(table, items=40, parameters=PARAMETERS, known=NOTHING, seed=0)
    assert lessons is not None
    assert 0 < len(lessons.each) <= 30
    assert lessons.sources.ranker is not None
    for lesson in lessons.each:
        assert len(lesson.wanted) == 1
        assert lesson.wanted[0] not in lessons.sources.ranker.shopper(lesson.row).seen


def test_who_came_on_one_day_alone_is_asked_for_the_last_tenth() -> None:
    """Else a log of single visits would teach nothing."""
    rows = [(f"u{user}", item, "view", user * DAY + item) for user in range(20) for item in range(20)]
    table = pd.DataFrame(rows, columns=["user_id", "item", "event", "timestamp"]).assign(value=1.0)
    lessons = blend.look_ahead(table, items=20, parameters=PARAMETERS, known=NOTHING, seed=0)
    assert lessons is not None
    assert all(sorted(lesson.wanted) == [18, 19] for lesson in lessons.each)


def test_the_trend_is_learnt_where_fashion_rules() -> None:
    """Where people touch what is new this week, the trend gets a weight; the factors cannot know."""
    made = blend.learn(log(fashion=True), items=40, parameters=PARAMETERS, known=NOTHING, seed=0)
    steady = blend.learn(log(), items=40, parameters=PARAMETERS, known=NOTHING, seed=0)
    assert made.tiers["taste"]["trend"] > 3 * max(steady.tiers["taste"]["trend"], 0.1)


def test_nothing_to_learn_from_leaves_the_unlearned_weights() -> None:
    """A single pair."""
    table = log(users=1, days=1)
    assert blend.learn(table, items=40, parameters=PARAMETERS, known=NOTHING, seed=0).tiers == blend.UNLEARNED


def test_a_regularisation_is_chosen_of_a_few() -> None:
    """All else stays as it was, and the same log chooses the same."""
    first, second = (tune.choose(log(), items=40, known=NOTHING, start=PARAMETERS) for _ in range(2))
    assert first == second
    assert (first.unobserved, first.regularisation) in tune.CHOICES
    assert (first.factors, first.sweeps) == (8, 6)


def test_a_search_goes_on_where_it_was_and_is_never_worse(tmp_path: Path) -> None:
    """The study lies in a file; the first trial is the starting point; tuned.json is what train reads."""

    def search(trials: int) -> tuple[RankerParameters, float, float]:
        return tune.tune(
            log(), items=40, known=NOTHING, start=PARAMETERS, trials=trials, folder=tmp_path, study_name="one"
        )

    _, reached, before = search(3)
    parameters, again, still = search(5)
    assert again >= reached >= before == still > 0
    tune.save(parameters, again, tmp_path, SEEN)
    assert RankerParameters(**tune.defaults(tmp_path, lambda: SEEN)) == parameters
    assert search(5)[0] == parameters, "no trial was left to run"


def test_a_broken_tuned_json_is_named(tmp_path: Path) -> None:
    """Rather than trained without it."""
    assert tune.defaults(tmp_path, lambda: SEEN) == {}
    (tmp_path / tune.TUNED).write_text('{"parameters": {"fractors": 3}}')
    with pytest.raises(CatalogueError, match=r"tuned.json cannot be read"):
        tune.defaults(tmp_path, lambda: SEEN)


def test_what_was_tuned_on_another_log_is_not_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same log a month later is known again by what happened in it; that of another shop is not."""
    tune.save(PARAMETERS, 0.1, tmp_path, SEEN)
    assert tune.defaults(tmp_path, lambda: [*SEEN[100:], "new", "newer"]) == asdict(PARAMETERS)
    assert tune.defaults(tmp_path, lambda: [*SEEN[:100], *(f"other {number}" for number in range(9000))]) == {}
    assert "was tuned on another log (" in capsys.readouterr().err
