"""The nearest items, exactly or by HNSW, filtered inside the search."""

import numpy as np
import pytest

from service.index import Index, build


def unit(n: int, dim: int = 16, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(n, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def opened(vectors: np.ndarray, *, exact_below: int) -> Index:
    rows = np.flatnonzero(~np.isnan(vectors[:, 0]))
    return Index(build(vectors[rows], exact_below=exact_below), vectors, rows)


@pytest.mark.parametrize("exact_below", [10**6, 0])
def test_an_item_is_its_own_nearest(exact_below: int) -> None:
    """Searching for an item's vector finds it first, with cosine 1."""
    vectors = unit(3000)
    rows, cosines = opened(vectors, exact_below=exact_below).search(vectors[:50], k=5)
    assert rows[:, 0].tolist() == list(range(50))
    np.testing.assert_allclose(cosines[:, 0], 1, atol=1e-5)
    assert (np.diff(cosines, axis=1) <= 0).all()


def test_exact_search_agrees_with_a_sort() -> None:
    """Below the size where HNSW begins, the answer is the true one."""
    vectors, queries = unit(500), unit(20, seed=1)
    rows, _ = opened(vectors, exact_below=10**6).search(queries, k=10)
    np.testing.assert_array_equal(rows, np.argsort(-(queries @ vectors.T), axis=1)[:, :10])


def test_items_without_a_picture_are_never_found() -> None:
    """Rows of NaN are not in the index, and the others keep their row numbers."""
    vectors = unit(100)
    vectors[::2] = np.nan
    rows, _ = opened(vectors, exact_below=10**6).search(unit(5, seed=2), k=60)
    assert set(rows[rows >= 0] % 2) == {1}
    assert ((rows >= 0).sum(axis=1) == 50).all()


@pytest.mark.parametrize("exact_below", [10**6, 0])
@pytest.mark.parametrize("passing", [3, 10, 400, 29_000])
def test_k_items_come_back_whenever_k_pass_the_filter(exact_below: int, passing: int) -> None:
    """However few pass, they are all found, and none that does not pass."""
    vectors = unit(30_000, dim=8)
    allowed = np.zeros(len(vectors), bool)
    allowed[np.random.default_rng(3).permutation(len(vectors))[:passing]] = True
    rows, cosines = opened(vectors, exact_below=exact_below).search(unit(4, dim=8, seed=4), k=10, allowed=allowed)
    expected = min(10, passing)
    assert ((rows >= 0).sum(axis=1) == expected).all()
    assert allowed[rows[rows >= 0]].all()
    assert np.isnan(cosines[rows < 0]).all()


def test_equal_items_come_in_row_order() -> None:
    """Duplicates are ordered by row, so that answers do not change between runs."""
    vectors = np.repeat(unit(1), 20, axis=0)
    rows, _ = opened(vectors, exact_below=10**6).search(vectors[:1], k=20)
    assert rows[0].tolist() == list(range(20))


def test_hnsw_finds_nearly_all_of_the_true_ten() -> None:
    """recall@10 of the graph is at least 0.98 on random vectors."""
    vectors, queries = unit(20_000, dim=32), unit(100, dim=32, seed=5)
    rows, _ = opened(vectors, exact_below=0).search(queries, k=10)
    truth = np.argsort(-(queries @ vectors.T), axis=1)[:, :10]
    assert np.mean([len(set(a) & set(b)) / 10 for a, b in zip(rows, truth, strict=True)]) >= 0.98
