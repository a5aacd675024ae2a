"""Fold-in, the maximum inner product, diversity, and what a user's events mean."""

import numpy as np
import pytest

from service.recommender.factors import Objective, Ranker, last_event_of_each
from service.recommender.scoring.diversity import diversify
from service.recommender.user_keys import hash_user, key_check

OBJECTIVE = Objective(unobserved=0.5, regularisation=0.01, frequency=1.0)


@pytest.fixture
def ranker() -> Ranker:
    rng = np.random.default_rng(0)
    items = rng.normal(size=(50, 8)).astype(np.float32)
    users = rng.normal(size=(2, 8)).astype(np.float32)
    indptr, history = np.array([0, 3, 3]), np.array([4, 9, 2], np.int32)
    return Ranker(
        items, users, items.T @ items, {"a": 0, "b": 1}, indptr, history, np.ones(3, np.float32), OBJECTIVE, 50
    )


def test_fold_in_minimises_the_objective(ranker: Ranker) -> None:
    """The gradient of the written objective vanishes at the folded-in factor."""
    rows, confidence = np.array([1, 5, 7]), np.array([1.0, 2.0, 4.0], np.float32)
    u = ranker.fold_in(rows, confidence).astype(float)
    factors = ranker.item_factors.astype(float)
    ridge = OBJECTIVE.regularisation * (3 + OBJECTIVE.unobserved * 50)
    gradient = -(confidence * (1 - factors[rows] @ u)) @ factors[rows]
    gradient += OBJECTIVE.unobserved * (factors @ u) @ factors + ridge * u
    np.testing.assert_allclose(gradient, 0, atol=1e-4)


def test_top_is_the_maximum_inner_product_among_the_allowed(ranker: Ranker) -> None:
    """The k best rows, and only allowed ones."""
    user = ranker.user(0)
    allowed = np.arange(50) % 2 == 0
    scores = np.where(allowed, ranker.item_factors @ user.factor, -np.inf)
    assert set(ranker.top(user, k=5, allowed=allowed)) == set(np.argsort(-scores)[:5])
    assert len(ranker.top(user, k=40, allowed=allowed)) == 25


def test_events_join_what_training_knew(ranker: Ranker) -> None:
    """A known user's events extend the history; the latest comes last."""
    user = ranker.user_with_events(0, np.array([7, 4]), np.array([1.0, 4.0], np.float32))
    assert user.history.tolist() == [9, 2, 7, 4]
    expected = ranker.fold_in(np.array([9, 2, 7, 4]), np.array([1.0, 1.0, 1.0, 4.0], np.float32))
    np.testing.assert_allclose(user.factor, expected, atol=1e-6)


def test_a_dismissed_item_is_seen_but_not_liked(ranker: Ranker) -> None:
    """Its score is drawn to 0, and it is no news any more."""
    confidence = OBJECTIVE.confidence(["dismiss", "like"])
    user = ranker.user_with_events(None, np.array([3, 8]), confidence)
    without = ranker.user_with_events(None, np.array([8]), confidence[1:])
    assert user.history.tolist() == [8]
    assert sorted(user.seen.tolist()) == [3, 8]
    assert abs(ranker.scores(user, np.array([3]))) < abs(ranker.scores(without, np.array([3])))


def test_the_last_word_on_an_item_counts() -> None:
    """Dismissed after all, or liked after all; of several likings the strongest."""
    items, words = last_event_of_each(np.array([1, 2, 1, 2, 3]), np.array([4.0, -1.0, -1.0, 2.0, 1.0], np.float32))
    assert items.tolist() == [1, 2, 3]
    assert words.tolist() == [-1, 2, 1]


def test_stronger_events_weigh_more() -> None:
    """view < like < cart < purchase; a dismissal is negative."""
    view, like, cart, purchase, dismiss = OBJECTIVE.confidence(["view", "like", "cart", "purchase", "dismiss"])
    assert dismiss < 0 < view < like < cart < purchase


def test_the_profile_is_where_a_fold_in_starts(ranker: Ranker) -> None:
    """Without an event a user of known profile is the profile; with events it is moved from there."""
    base = np.arange(8, dtype=np.float32)
    known = Ranker(
        ranker.item_factors, ranker.user_factors, np.zeros((8, 8)), {"a": 0}, np.array([0, 0]), np.empty(0, np.int32),
        np.empty(0, np.float32), OBJECTIVE, 50, user_base=base[None],
    )  # fmt: skip
    np.testing.assert_allclose(known.fold_in(np.empty(0, int), np.empty(0, np.float32), base), base, rtol=1e-5)
    moved = known.user_with_events(0, np.array([3]), np.array([9.0], np.float32))
    assert abs(moved.factor @ known.item_factors[3] - 1) < abs(base @ known.item_factors[3] - 1)


def test_user_ids_are_hashed_under_the_deployments_key() -> None:
    """Without the key nobody can tell whether an id is in a release, and the check does not give the key away."""
    assert hash_user("17850", "one") != hash_user("17850", "two")
    assert hash_user("007", "one") != hash_user("7", "one")
    assert key_check("one") != key_check("two")
    assert "one" not in key_check("one")


def test_diversity_spreads_the_answers() -> None:
    """Of two clusters, plain order takes one, diversity both; the best item stays first."""
    scores = np.array([1.0, 0.99, 0.98, 0.5, 0.49])
    vectors = np.array([[1, 0], [1, 0], [1, 0], [0, 1], [0, 1]], np.float32)
    assert diversify(scores, vectors, k=3, diversity=0.0).tolist() == [0, 1, 2]
    assert diversify(scores, vectors, k=3, diversity=0.7).tolist()[:2] == [0, 3]
