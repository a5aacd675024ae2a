"""The weights of the final sum, and the search for parameters, on logs whose answer is known."""

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from service.errors import CatalogueError
from training.data.side_information import Known, SideInformation
from training.ranker import lessons as ahead
from training.ranker import term_weights, tuning
from training.ranker.fitting import RankerParameters
from training.ranker.lessons import Choice

DAY = 86_400
NOTHING = Known(SideInformation())
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
    weights, reached = term_weights.fit(choices)
    assert reached > 0.95
    assert weights["tells"] - 0.2 * weights["against"] > 10 * abs(weights["noise"])


def test_a_term_that_some_lack_counts_nothing_for_them() -> None:
    """Users without a price history have no price_fit."""
    with_it = Choice({"a": np.array([1.0, 0.0]), "b": np.array([1.0, 0.0])}, np.array([True, False]))
    without = Choice({"a": np.array([1.0, 0.0, 0.0])}, np.array([True, False, False]))
    weights, reached = term_weights.fit([with_it, without])
    assert set(weights) == {"a", "b"}
    assert reached == 1


def test_each_users_last_visit_is_looked_at_from_before_it() -> None:
    """The ranker of the lessons has not seen it; the latter half of the users is asked."""
    table = log(days=10)
    lessons = ahead.look_ahead(table, items=40, parameters=PARAMETERS, known=NOTHING, seed=0)
    assert lessons is not None
    assert 0 < len(lessons.each) <= 30
    assert lessons.sources.ranker is not None
    for lesson in lessons.each:
        assert len(lesson.wanted) == 1
        assert lesson.wanted[0] not in lessons.sources.ranker.user(lesson.row).seen


def test_who_comes_back_is_asked_for_the_last_tenth_of_the_log() -> None:
    """As a release is, which knows nothing of what comes: neither of who is asked, nor of others."""
    table = log(users=150, days=20)
    lessons = ahead.look_ahead(table, items=40, parameters=PARAMETERS, known=NOTHING, seed=0)
    assert lessons is not None
    early = table[table["timestamp"] <= table["timestamp"].quantile(0.9)]
    seen = sum(len(lessons.ranker.user(row).seen) for row in range(lessons.ranker.users))
    assert seen == len(early.drop_duplicates(["user_id", "item"]))
    assert all((lesson.told.trend == lessons.at_end.trend).all() for lesson in lessons.each)


@pytest.mark.parametrize("clock", ["visits", "equal", "rising"])
def test_who_came_once_is_asked_for_the_last_tenth(clock: str) -> None:
    """Else a log of single visits, or one whose clock says nothing, would teach nothing."""
    when = {"visits": lambda user, item: user * DAY + item, "equal": lambda *_: 0, "rising": lambda u, i: 20 * u + i}
    rows = [(f"u{user}", item, "view", when[clock](user, item)) for user in range(20) for item in range(20)]
    table = pd.DataFrame(rows, columns=["user_id", "item", "event", "timestamp"]).assign(value=1.0)
    lessons = ahead.look_ahead(table, items=20, parameters=PARAMETERS, known=NOTHING, seed=0)
    assert lessons is not None
    assert all(sorted(lesson.wanted) == [18, 19] for lesson in lessons.each)


def test_the_trend_is_learnt_where_fashion_rules() -> None:
    """Where people touch what is new this week, the trend gets a weight; the factors cannot know."""
    made = term_weights.learn(log(fashion=True), items=40, parameters=PARAMETERS, known=NOTHING, seed=0)
    steady = term_weights.learn(log(), items=40, parameters=PARAMETERS, known=NOTHING, seed=0)
    assert made.blend.tiers["taste"]["trend"] > 3 * max(steady.blend.tiers["taste"]["trend"], 0.1)


def test_nothing_to_learn_from_leaves_the_unlearned_weights() -> None:
    """A single pair."""
    table = log(users=1, days=1)
    assert (
        term_weights.learn(table, items=40, parameters=PARAMETERS, known=NOTHING, seed=0).blend.tiers
        == term_weights.UNLEARNED
    )


def test_a_visit_longer_than_all_before_it_is_not_held_out_whole() -> None:
    """Five events, and a year later fifteen: two are asked about, and thirteen teach with the five."""
    times = [*range(5), *(365 * DAY + at for at in range(15))]
    table = pd.DataFrame({"user_id": "u", "item": range(20), "event": "view", "timestamp": times})
    assert ahead.last_events(table).tolist() == [False] * 18 + [True] * 2


def test_a_last_visit_is_held_out_whole() -> None:
    """Four visits of five items: what was bought together is not half known."""
    times = [7 * DAY * visit + at for visit in range(4) for at in range(5)]
    table = pd.DataFrame({"user_id": "u", "item": range(20), "event": "view", "timestamp": times})
    assert ahead.last_events(table).tolist() == [False] * 15 + [True] * 5


def test_the_regularisation_moves_on_as_long_as_it_gets_better() -> None:
    """No neighbour on the grid is better than what is chosen; all else stays, and the same log chooses the same."""
    first, second = (tuning.choose(log(), items=40, known=NOTHING, start=PARAMETERS) for _ in range(2))
    assert first == second
    assert (first.factors, first.sweeps) == (8, 6)

    def reach(parameters: RankerParameters) -> float:
        lessons = ahead.look_ahead(log(), items=40, parameters=parameters, known=NOTHING, seed=0)
        assert lessons is not None
        return term_weights.rehearse_factors(lessons, seed=0)

    at = tuning.UNOBSERVED.index(first.unobserved), tuning.REGULARISATION.index(first.regularisation)
    near = [(at[0] + 1, at[1]), (at[0] - 1, at[1]), (at[0], at[1] + 1), (at[0], at[1] - 1)]
    for unobserved, regularisation in near:
        tried = replace(
            first, unobserved=tuning.UNOBSERVED[unobserved], regularisation=tuning.REGULARISATION[regularisation]
        )
        assert reach(tried) <= reach(first)


def test_a_term_that_adds_nothing_gets_no_weight() -> None:
    """Among terms of noise the one that tells is left alone; the sum is never worse than the factors."""
    rng = np.random.default_rng(1)
    choices = []
    for _ in range(200):
        chosen = np.arange(50) < 3
        noise = {f"noise{number}": rng.normal(size=50) for number in range(6)}
        choices.append(Choice({"factor": chosen + rng.normal(0, 0.6, 50), **noise}, chosen))
    weights, reached = term_weights.fit(choices)
    assert weights.pop("factor") > 0
    assert sum(weight != 0 for weight in weights.values()) <= 1
    assert reached >= term_weights.fit([Choice({"factor": each.values["factor"]}, each.chosen) for each in choices])[1]


def test_the_factors_are_never_turned_round() -> None:
    """What nobody has touched yet has no neighbours by what was touched together: the factors alone order it."""
    rng = np.random.default_rng(3)
    choices = []
    for _ in range(200):
        chosen = np.arange(50) < 3
        beside = chosen + rng.normal(0, 0.3, 50)
        choices.append(Choice({"factor": beside - 1.5 * chosen, "item_to_item": beside}, chosen))
    weights, reached = term_weights.fit(choices)
    assert weights["factor"] > 0
    assert weights["item_to_item"] > 5 * weights["factor"]
    assert reached > 0.9


def test_a_trend_that_has_passed_when_the_log_ends_gets_no_weight() -> None:
    """It told what came next at its time, but a release knows only the last one."""
    rng = np.random.default_rng(2)
    then, at_end = [], []
    for _ in range(200):
        chosen = np.arange(50) < 3
        factor = chosen + rng.normal(0, 0.6, 50)
        then.append(Choice({"factor": factor, "trend": chosen + rng.normal(0, 0.3, 50)}, chosen))
        at_end.append(Choice({"factor": factor, "trend": rng.normal(0, 1, 50)}, chosen))
    assert term_weights.fit(then)[0]["trend"] > 0
    assert term_weights.fit(then, at_end)[0]["trend"] == 0


def test_a_search_goes_on_where_it_was_and_is_never_worse(tmp_path: Path) -> None:
    """The study lies in a file; the first trial is the starting point; tuned.json is what train reads."""

    def search(trials: int) -> tuple[RankerParameters, float, float]:
        return tuning.tune(
            log(), items=40, known=NOTHING, start=PARAMETERS, trials=trials, folder=tmp_path, study_name="one"
        )

    _, reached, before = search(3)
    parameters, again, still = search(5)
    assert again >= reached >= before == still > 0
    tuning.save(parameters, again, tmp_path, SEEN)
    assert RankerParameters(**tuning.defaults(tmp_path, lambda: SEEN)) == parameters
    assert search(5)[0] == parameters, "no trial was left to run"


def test_a_broken_tuned_json_is_named(tmp_path: Path) -> None:
    """Rather than trained without it."""
    assert tuning.defaults(tmp_path, lambda: SEEN) == {}
    (tmp_path / tuning.TUNED).write_text('{"parameters": {"fractors": 3}}')
    with pytest.raises(CatalogueError, match=r"tuned.json cannot be read"):
        tuning.defaults(tmp_path, lambda: SEEN)


def test_what_was_tuned_on_another_log_is_not_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same log a month later is known again by what happened in it; that of another shop is not."""
    tuning.save(PARAMETERS, 0.1, tmp_path, SEEN)
    assert tuning.defaults(tmp_path, lambda: [*SEEN[100:], "new", "newer"]) == asdict(PARAMETERS)
    assert tuning.defaults(tmp_path, lambda: [*SEEN[:100], *(f"other {number}" for number in range(9000))]) == {}
    assert "was tuned on another log (" in capsys.readouterr().err
