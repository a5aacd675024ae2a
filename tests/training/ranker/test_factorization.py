"""The factorization, on data whose answer is known."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse

from service.recommender.factors import Objective
from training.ranker.factorization import Factors, factorize
from training.ranker.factorization_gpu import solve_on_gpu

OBJECTIVE = Objective(unobserved=0.1, regularisation=0.01, frequency=1.0)


def checkerboard(side: int = 20) -> scipy.sparse.csr_matrix:
    """Users touch the items of their own parity, but for the diagonal, which is held out."""
    user, item = np.mgrid[0:side, 0:side]
    touched = ((user + item) % 2 == 0) & (user != item)
    return scipy.sparse.csr_matrix(touched.astype(np.float32))


def run(matrix: scipy.sparse.csr_matrix, **options: object) -> Factors:
    return factorize(matrix, OBJECTIVE, factors=8, sweeps=12, quiet=True, **options)  # type: ignore[arg-type]


def parity(side: int, more: int = 0) -> np.ndarray:
    """One-hot: even, odd."""
    return np.eye(2, dtype=np.float32)[np.arange(side + more) % 2]


def test_the_held_out_diagonal_of_a_checkerboard_comes_first() -> None:
    """Among what a user has not touched, the item of their own parity is ranked first."""
    matrix = checkerboard()
    made = run(matrix)
    scores = made.users @ made.items.T
    scores[matrix.toarray() > 0] = -np.inf
    np.testing.assert_array_equal(scores.argmax(axis=1), np.arange(20))


def test_user_factors_minimise_the_written_objective() -> None:
    """A user factor is the closed-form solution for its own row, computed here the slow way, prior and all."""
    rng = np.random.default_rng(2)
    matrix = scipy.sparse.random(40, 30, density=0.2, random_state=1, format="csr", dtype=np.float32)
    matrix.data[:] = rng.uniform(1, 4, matrix.nnz) * rng.choice([1, 1, -1], matrix.nnz)
    profiles = rng.normal(size=(40, 3)).astype(np.float32)
    made = run(matrix, user_features=profiles)
    assert made.user_prior is not None
    touched = matrix.getnnz(axis=0) > 0
    gramian = 0.1 * made.items.T @ made.items
    for user in (0, 7, 39):
        row = matrix[user].toarray()[0].astype(float)
        ridge = OBJECTIVE.ridge(np.array([(row != 0).sum()]), int(touched.sum()))[0]
        # the prior that the last solve saw is the one before its own update: solve for both, they have converged
        prior = profiles[user] @ made.user_prior
        system = (made.items.T * np.abs(row)) @ made.items + gramian + ridge * np.eye(8)
        expected = np.linalg.solve(system, made.items.T @ np.maximum(row, 0) + ridge * prior)
        np.testing.assert_allclose(made.users[user], expected, atol=2e-2)


def test_without_features_the_solution_is_exact() -> None:
    """Conjugate gradients reach the direct solution."""
    matrix = checkerboard()
    made = run(matrix)
    row = matrix[3].toarray()[0].astype(float)
    ridge = OBJECTIVE.ridge(np.array([row.sum()]), 20)[0]
    system = (made.items.T * (row + 0.1)) @ made.items + ridge * np.eye(8)
    np.testing.assert_allclose(made.users[3], np.linalg.solve(system, made.items.T @ row), atol=1e-4)


def test_an_item_that_nobody_touched_is_what_its_features_say() -> None:
    """Three new items, of known parity: even users are recommended the even ones; without features they are zero."""
    matrix = scipy.sparse.hstack([checkerboard(), scipy.sparse.csr_matrix((20, 4), dtype=np.float32)]).tocsr()
    features = parity(20, 4)
    made = run(matrix, item_features=features, prior_ridge=0.01)
    assert made.item_prior is not None
    np.testing.assert_allclose(made.items[20:], features[20:] @ made.item_prior, atol=1e-6)
    scores = made.users @ made.items[20:].T
    even = np.arange(20) % 2 == 0
    assert (scores[even][:, [0, 2]].min(axis=1) > scores[even][:, [1, 3]].max(axis=1)).all()
    assert (scores[~even][:, [1, 3]].min(axis=1) > scores[~even][:, [0, 2]].max(axis=1)).all()
    assert not run(matrix).items[20:].any()


def test_a_user_without_history_is_what_the_profile_says() -> None:
    """New users of known parity are recommended items of that parity."""
    matrix = scipy.sparse.vstack([checkerboard(), scipy.sparse.csr_matrix((2, 20), dtype=np.float32)]).tocsr()
    made = run(matrix, user_features=parity(20, 2), prior_ridge=0.01)
    scores = made.users[20:] @ made.items.T
    assert scores[0, ::2].min() > scores[0, 1::2].max()
    assert scores[1, 1::2].min() > scores[1, ::2].max()


def test_a_dismissed_pair_scores_below_one_that_nobody_spoke_of() -> None:
    """A dismissal is a negative, not an absence."""
    matrix = checkerboard().tolil()
    matrix[0, 2] = -3.0
    told, untold = run(matrix.tocsr()), checkerboard().tolil()
    untold[0, 2] = 0.0
    silent = run(untold.tocsr())
    assert told.users[0] @ told.items[2] < silent.users[0] @ silent.items[2] - 0.05


def test_the_same_seed_gives_the_same_factors() -> None:
    """Bit for bit, whatever the threads do."""
    first, second = run(checkerboard(200)), run(checkerboard(200))
    np.testing.assert_array_equal(first.users, second.users)
    np.testing.assert_array_equal(first.items, second.items)
    assert not np.array_equal(first.items, run(checkerboard(200), seed=1).items)


def test_blocks_of_a_gpu_solve_what_the_rows_of_a_cpu_do() -> None:
    """The padded form in torch, here on the CPU, gives the same factors as the compiled rows."""
    rng = np.random.default_rng(0)
    matrix = scipy.sparse.random(50, 30, density=0.2, random_state=3, format="csr", dtype=np.float32)
    matrix.data[:] = rng.uniform(1, 3, matrix.nnz) * rng.choice([1, -1], matrix.nnz)
    matrix = scipy.sparse.diags(np.arange(50) != 4, dtype=np.float32) @ matrix  # row 4 observes nothing
    matrix.eliminate_zeros()
    fixed = rng.normal(size=(30, 8)).astype(np.float32)
    gramian = 0.1 * fixed.T @ fixed
    ridge, prior = rng.uniform(0.1, 1, 50).astype(np.float32), rng.normal(size=(50, 8)).astype(np.float32)
    solved = solve_on_gpu(matrix, fixed, gramian, ridge, prior, np.zeros((50, 8), np.float32), 20, device="cpu")
    for row in (0, 4, 31):
        values = matrix[row].toarray()[0]
        system = (fixed.T * np.abs(values)) @ fixed + gramian + ridge[row] * np.eye(8)
        expected = np.linalg.solve(system, fixed.T @ np.maximum(values, 0) + ridge[row] * prior[row])
        np.testing.assert_allclose(solved[row], expected if row != 4 else prior[4], atol=1e-3)


def test_one_pair_is_enough() -> None:
    """The smallest log trains, and the pair comes out near 1."""
    made = factorize(
        scipy.sparse.csr_matrix(np.ones((1, 1), np.float32)),
        replace(OBJECTIVE, regularisation=0.001), factors=4, sweeps=12, quiet=True,
    )  # fmt: skip
    assert made.users[0] @ made.items[0] == pytest.approx(0.9, abs=0.1)


def test_factors_that_go_on_settle_in_fewer_sweeps_where_they_would_have_ended() -> None:
    """A log that has grown a little: as good as from anew, for new rows too, and the same each time."""
    rng = np.random.default_rng(0)
    tastes, kinds = rng.integers(4, size=300), rng.integers(4, size=200)
    liked = rng.random((300, 200)) < np.where(tastes[:, None] == kinds[None], 0.3, 0.01)
    before = scipy.sparse.csr_matrix(liked[:-10, :-5].astype(np.float32))
    today = scipy.sparse.csr_matrix(liked.astype(np.float32))
    first, anew = run(before), run(today)
    start = tuple(
        np.concatenate([known, np.full((more, 8), np.nan, np.float32)])
        for known, more in ((first.users, 10), (first.items, 5))
    )
    sweeps: list[int] = []
    again = run(today, start=start, after_sweep=lambda users, items: sweeps.append(1))
    assert len(sweeps) < 12
    np.testing.assert_array_equal(again.items, run(today, start=start).items)

    def error(made: Factors) -> float:
        return float(((liked - made.users @ made.items.T) ** 2).mean())

    assert error(again) < 1.02 * error(anew)


def test_new_rows_go_on_from_what_their_features_say() -> None:
    """An item that came has the prior of those like it before anybody touched it."""
    matrix = checkerboard()
    made = run(matrix, item_features=parity(20))
    wider = scipy.sparse.csr_matrix((matrix.data, matrix.indices, matrix.indptr), shape=(20, 22))
    start = (made.users, np.concatenate([made.items, np.full((2, 8), np.nan, np.float32)]))
    again = run(wider, item_features=parity(20, 2), start=start)
    scores = again.users @ again.items[20:].T
    np.testing.assert_array_equal(scores.argmax(axis=1), np.arange(20) % 2)
