"""A photo and a user, on drawn vectors whose kinds, looks and tastes are known."""

import numpy as np
import pandas as pd
import pytest

from service.recommender.index.vector_index import Index, build
from training.data.side_information import Known, SideInformation
from training.ranker import term_weights
from training.ranker.fitting import RankerParameters
from training.ranker.term_weights import Learned

KINDS, COLOURS, EACH = 6, 4, 12  # items of every kind and colour
ITEMS, USERS, DAY = KINDS * COLOURS * EACH, 300, 86_400
PARAMETERS = RankerParameters(factors=16, sweeps=6)
KIND = np.repeat(np.arange(KINDS), COLOURS * EACH)
COLOUR = np.tile(np.repeat(np.arange(COLOURS), EACH), KINDS)


def shop() -> Known:
    """Pictures in which the kind shows clearly, the colour less so, and views of them."""
    rng = np.random.default_rng(0)
    kinds, colours = rng.normal(size=(KINDS, 16)), rng.normal(size=(COLOURS, 16))

    def look() -> np.ndarray:
        made = kinds[KIND] + 0.5 * colours[COLOUR] + rng.normal(0, 1.0, (ITEMS, 16))
        return (made / np.linalg.norm(made, axis=1, keepdims=True)).astype(np.float32)

    vectors = look()
    views = vectors + 0.3 * look()
    views /= np.linalg.norm(views, axis=1, keepdims=True)
    index = Index(build(vectors), np.arange(ITEMS), items=ITEMS)
    return Known(SideInformation(), index, (np.arange(ITEMS), views), None, (KIND + 1).astype(np.int32))


def log(*, tastes: bool) -> pd.DataFrame:
    """Users each of whom likes one colour, or touches anything."""
    rng = np.random.default_rng(1)
    rows = []
    for user in range(USERS):
        pool = np.flatnonzero(user % COLOURS == COLOUR) if tastes else np.arange(ITEMS)
        touched = rng.choice(pool, 20, replace=False)
        rows += [(f"u{user:03d}", int(item), "view", day * DAY + user) for day, item in enumerate(touched)]
    table = pd.DataFrame(rows, columns=["user_id", "item", "event", "timestamp"]).assign(value=1.0)
    return table.sort_values("timestamp", kind="stable").reset_index(drop=True)


def learn(*, tastes: bool) -> Learned:
    """What a log teaches of the trade."""
    return term_weights.learn(log(tastes=tastes), items=ITEMS, parameters=PARAMETERS, known=shop(), seed=0)


@pytest.fixture(scope="module")
def learned() -> Learned:
    """Of users who have tastes."""
    return learn(tastes=True)


def test_taste_is_given_its_share_where_there_is_one(learned: Learned) -> None:
    """The default finds more of what is touched next than the photo alone, keeps the kind, and most of the likeness."""
    trade, told = learned.blend.trade, learned.trade
    assert trade is not None
    assert told is not None
    assert trade.default > 0.2
    curve = {step["personalization"]: step for step in told["curve"]}
    assert curve[trade.default]["ndcg_at_10"] > 1.2 * curve[0.0]["ndcg_at_10"]
    assert curve[trade.default]["own_category"] >= 0.98 * curve[0.0]["own_category"]
    assert curve[trade.default]["likeness_kept"] >= 0.9
    assert learned.blend.tiers["ranked"] == trade.weights(trade.default)


def test_users_without_a_taste_are_answered_by_the_photo() -> None:
    """What helps by chance alone is given nothing."""
    made = learn(tastes=False).blend
    assert made.trade is not None
    assert made.trade.default == 0
    looks = {name: weight for name, weight in made.tiers["ranked"].items() if weight}
    assert looks == pytest.approx(made.tiers["visual"], rel=1e-5)


def test_neighbours_vote_where_that_finds_more_of_the_kind(learned: Learned) -> None:
    """Where categories are named by chance they are given no vote."""
    assert learned.blend.tiers["visual"]["kind"] > 0
    known = shop()
    rng = np.random.default_rng(0)
    shuffled = Known(known.sides, known.index, known.views, None, rng.permutation(known.categories))
    made = term_weights.learn(log(tastes=True), items=ITEMS, parameters=PARAMETERS, known=shuffled, seed=0)
    assert made.blend.tiers["visual"]["kind"] == 0


def test_a_share_of_one_end_is_worth_as_much_as_of_the_other(learned: Learned) -> None:
    """A catalogue whose factor scores are a hundred times larger learns the same trade."""
    trade = learned.blend.trade
    assert trade is not None
    assert trade.weights(0) == pytest.approx(dict(trade.looks) | {n: 0 for n in trade.taste if n not in trade.looks})
    assert trade.weights(1)["likeness"] == 0
    assert trade.looks["kind"] == trade.taste["kind"]
