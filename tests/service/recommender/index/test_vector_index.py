"""The nearest items, exactly or by HNSW, filtered inside the search."""

from pathlib import Path

import faiss
import numpy as np
import psutil
import pytest

from service.recommender.index.vector_index import Index, build


def unit(n: int, dim: int = 16, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(n, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def opened(vectors: np.ndarray, *, exact_below: int) -> Index:
    rows = np.flatnonzero(~np.isnan(vectors[:, 0]))
    return Index(build(vectors[rows], exact_below=exact_below), rows, items=len(vectors))


def share_found(index: Index, vectors: np.ndarray, queries: np.ndarray, *, k: int) -> float:
    rows, _ = index.search(queries, k=k)
    truth = np.argsort(-(queries @ vectors.T), axis=1)[:, :k]
    return float(np.mean([len(set(a) & set(b)) / k for a, b in zip(rows, truth, strict=True)]))


@pytest.mark.parametrize("exact_below", [10**6, 0])
def test_an_item_is_its_own_nearest(exact_below: int) -> None:
    """Searching for an item's vector finds it first, with cosine 1."""
    vectors = unit(3000)
    rows, cosines = opened(vectors, exact_below=exact_below).search(vectors[:50], k=5)
    assert rows[:, 0].tolist() == list(range(50))
    np.testing.assert_allclose(cosines[:, 0], 1, atol=5e-4)  # float16 under a graph
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


@pytest.mark.parametrize("queries", [1, 40])
@pytest.mark.parametrize("exact_below", [10**6, 0])
def test_equal_items_come_in_row_order(exact_below: int, queries: int) -> None:
    """Duplicates are ordered by row, one query or many, so that answers do not change between runs."""
    vectors = np.repeat(unit(1), 20, axis=0)
    rows, _ = opened(vectors, exact_below=exact_below).search(np.repeat(vectors[:1], queries, axis=0), k=20)
    assert rows.tolist() == [list(range(20))] * queries


@pytest.mark.slow
def test_a_graph_searched_further_finds_more() -> None:
    """efSearch is what trades recall for time: 0.99 of the true ten, on random vectors, with enough of it."""
    vectors, queries = unit(30_000, dim=24), unit(100, dim=24, seed=5)
    index = opened(vectors, exact_below=0)
    index.ef_search = 20
    little = share_found(index, vectors, queries, k=10)
    index.ef_search = 250
    assert little < 0.95 < 0.99 <= share_found(index, vectors, queries, k=10)


@pytest.mark.slow
def test_a_filter_that_most_items_fail_costs_no_recall() -> None:
    """With a twentieth passing, the true ten among them are found."""
    vectors, queries = unit(30_000, dim=16), unit(20, seed=6)
    allowed = np.random.default_rng(7).random(len(vectors)) < 0.05
    rows, _ = opened(vectors, exact_below=0).search(queries, k=10, allowed=allowed)
    truth = np.argsort(-np.where(allowed, queries @ vectors.T, -np.inf), axis=1)[:, :10]
    assert np.mean([len(set(a) & set(b)) / 10 for a, b in zip(rows, truth, strict=True)]) >= 0.99


@pytest.mark.parametrize(("exact_below", "off"), [(10**6, 0), (0, 1e-3)])
def test_vectors_come_back_from_the_index(exact_below: int, off: float) -> None:
    """As they went in where the index is exact, rounded to float16 under a graph; without a picture NaN, or zero."""
    vectors = unit(200)
    vectors[7] = np.nan
    index = opened(vectors, exact_below=exact_below)
    rows = np.array([199, 7, 0, 7])
    np.testing.assert_allclose(index.vectors(rows), vectors[rows], atol=off)
    np.testing.assert_allclose(index.vectors_or_zero(rows), np.nan_to_num(vectors[rows]), atol=off)
    assert index.vectors(rows).dtype == np.float32
    assert index.vectors(rows[:0]).shape == (0, 16)
    assert index.shape == (200, 16)


def test_building_twice_gives_the_same_file(tmp_path: Path) -> None:
    """The links of the graph are those of one thread, however many there are."""
    vectors = unit(2000)
    for name in ("first", "second"):
        faiss.write_index(build(vectors, exact_below=0), str(tmp_path / name))
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()


def test_opening_does_not_read_the_vectors(tmp_path: Path) -> None:
    """A file of 50 MB is opened at once: its pages come when a search first touches them."""
    storage = faiss.IndexFlatIP(1024)
    storage.add(unit(12_000, dim=1024))
    faiss.write_index(storage, str(tmp_path / "index.faiss"))
    process = psutil.Process()
    before = process.memory_info().rss
    index = Index.open(tmp_path / "index.faiss", np.arange(12_000), items=12_000)
    assert process.memory_info().rss - before < 10e6
    rows, _ = index.search(unit(12_000, dim=1024)[[5]], k=1)
    assert rows[0, 0] == 5
