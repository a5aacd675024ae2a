"""The factorization, on data whose answer is known."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse

from training.ranker import RankerParameters, confidence_matrix, factorize, history_of, train

PARAMETERS = RankerParameters(factors=8, sweeps=10, unobserved=0.1, regularisation=0.01)


def checkerboard(side: int = 20) -> scipy.sparse.csr_matrix:
    """Users touch the items of their own parity, but for the diagonal, which is held out."""
    user, item = np.mgrid[0:side, 0:side]
    touched = ((user + item) % 2 == 0) & (user != item)
    return scipy.sparse.csr_matrix(touched.astype(np.float32))


def log(*rows: tuple[str, int, str, int]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["user_id", "item", "event", "timestamp"]).assign(value=1.0)


def test_the_held_out_diagonal_of_a_checkerboard_comes_first() -> None:
    """Among what a user has not touched, the item of their own parity is ranked first."""
    matrix = checkerboard()
    users, items = factorize(matrix, PARAMETERS, quiet=True)
    scores = users @ items.T
    scores[matrix.toarray() > 0] = -np.inf
    np.testing.assert_array_equal(scores.argmax(axis=1), np.arange(20))


def test_factors_are_the_fixed_point_of_the_objective() -> None:
    """A user factor is the closed-form solution for its own row, computed here the slow way."""
    matrix = scipy.sparse.random(40, 30, density=0.2, random_state=1, format="csr", dtype=np.float32)
    matrix.data[:] = np.random.default_rng(2).uniform(1, 4, matrix.nnz)
    users, items = factorize(matrix, PARAMETERS, quiet=True)
    touched = matrix.getnnz(axis=0) > 0
    for user in (0, 7, 39):
        row = matrix[user].toarray()[0]
        ridge = PARAMETERS.objective.ridge(np.array([(row > 0).sum()]), int(touched.sum()))[0]
        system = (items.T * (row + 0.1)) @ items + ridge * np.eye(8)
        np.testing.assert_allclose(users[user], np.linalg.solve(system, items.T @ row), atol=2e-4)


def test_items_that_nobody_touched_have_no_factors() -> None:
    """They are zero, not noise."""
    matrix = checkerboard()
    matrix = scipy.sparse.hstack([matrix, scipy.sparse.csr_matrix((20, 3), dtype=np.float32)]).tocsr()
    _, items = factorize(matrix, PARAMETERS, quiet=True)
    assert not items[-3:].any()
    assert items[:20].any(axis=1).all()


def test_the_same_seed_gives_the_same_factors() -> None:
    """Bit for bit."""
    first, second = (factorize(checkerboard(), PARAMETERS, quiet=True) for _ in range(2))
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[1], second[1])


def test_confidence_is_that_of_the_strongest_event() -> None:
    """Repeats count once; a purchase says more than a view; a dismissal alone says nothing."""
    events = log(("b", 0, "view", 1), ("b", 0, "purchase", 2), ("a", 1, "like", 1), ("a", 0, "dismiss", 3))
    matrix, users = confidence_matrix(events, items=3, event_confidence=0.5)
    assert users == ["a", "b"]
    np.testing.assert_allclose(matrix.toarray(), [[0, 1.5, 0], [2.5, 0, 0]])


def test_history_is_in_the_order_of_the_last_touch() -> None:
    """An item touched again moves to the end."""
    events = log(
        ("a", 2, "view", 1), ("a", 0, "view", 2), ("a", 1, "view", 3), ("a", 2, "view", 9), ("b", 0, "view", 5)
    )
    matrix, users = confidence_matrix(events, items=3, event_confidence=0.0)
    indptr, items, _, times = history_of(events, matrix, users)
    assert indptr.tolist() == [0, 3, 4]
    assert items.tolist() == [0, 1, 2, 0]
    assert times.tolist() == [2, 3, 9, 5]


def test_stored_factors_are_the_fold_in_of_stored_histories() -> None:
    """A shopper folded in from the very events that training saw gets the factor that training gave."""
    rng = np.random.default_rng(0)
    events = log(*[(f"u{u}", int(i), "view", t) for u in range(30) for t, i in enumerate(rng.permutation(25)[:8])])
    ranker, arrays, users = train(events, items=25, parameters=PARAMETERS, user_key="k", quiet=True)
    for row in (0, len(users) - 1):
        known = ranker.shopper(row)
        folded = ranker.fold_in(known.history, np.ones(len(known.history), np.float32))
        np.testing.assert_allclose(folded, arrays["user_factors"][row], atol=1e-4)


def test_one_shopper_and_one_item_are_enough() -> None:
    """The smallest log trains without a warning."""
    ranker, _, _ = train(log(("a", 0, "view", 1)), items=1, parameters=PARAMETERS, user_key="k", quiet=True)
    assert ranker.scores(ranker.shopper(0), np.array([0]))[0] == pytest.approx(1, abs=0.2)
