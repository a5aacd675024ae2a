"""The index of a release: searched as far as its own measurement says."""

from pathlib import Path

import faiss
import numpy as np
import pytest

from service.recommender.index.landmarks import FEATURES, PACKED
from service.recommender.index.vector_index import Index, build
from training.index.catalogue_vectors import Embedded
from training.index.embedding import Views, build_index, probes, tune_search


def clustered(n: int, seed: int) -> np.ndarray:
    """(n, 24) float32, unit length, around thirty centres."""
    centres = np.random.default_rng(0).normal(size=(30, 24))
    rng = np.random.default_rng(seed)
    vectors = centres[rng.integers(30, size=n)] + rng.normal(size=(n, 24))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    """Enough items that a graph is walked, not scanned."""
    return clustered(30_000, seed=1)


@pytest.fixture(scope="module")
def index(vectors: np.ndarray) -> Index:
    """A graph over them."""
    return Index(build(vectors, exact_below=0), np.arange(len(vectors)), items=len(vectors))


@pytest.mark.parametrize(("asked", "below"), [(0.9, 0.98), (0.99, 1)])
def test_the_graph_is_searched_far_enough_for_the_recall_asked(
    vectors: np.ndarray, index: Index, asked: float, below: float
) -> None:
    """Queries that efSearch was not chosen on get the recall that was asked, and not much more."""
    queries = clustered(300, seed=3)
    truth = np.argsort(-(queries @ vectors.T), axis=1)[:, :10]
    assert tune_search(index, vectors, asked=asked, rng=np.random.default_rng(0)) >= asked
    found, _ = index.search(queries, k=10)
    reached = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found, truth, strict=True)])
    assert asked <= reached < below


def test_probes_lie_between_items_as_far_from_them_as_they_are_from_each_other(vectors: np.ndarray) -> None:
    """Unit vectors; the item that one comes from is no nearer than that item's nearest neighbour."""
    few = vectors[:1000]  # fewer than are probed: each gives one probe, in order
    queries = probes(few, rng=np.random.default_rng(0))
    others = few @ few.T
    np.fill_diagonal(others, -1)
    np.testing.assert_allclose(np.linalg.norm(queries, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(np.einsum("nd,nd->n", queries, few), others.max(axis=1), atol=1e-5)


@pytest.mark.parametrize("exact_below", [10**6, 0])
def test_what_the_manifest_says_of_the_index(vectors: np.ndarray, tmp_path: Path, exact_below: int) -> None:
    """The recall, and under a graph what was asked and how far it is searched; an exact index has nothing to choose."""
    few = vectors[:3000]
    rows, pixels = np.arange(3000), np.zeros((50, 32, 32, 3), np.uint8)
    facts = build_index(
        Embedded(rows, few, np.zeros((3000, FEATURES, PACKED), np.uint8), np.zeros((3000, 32), np.uint8)),
        Views(rows[:50], few[:50], pixels), few[50:60], tmp_path, kinds=np.zeros(3000, np.int32),
        exact_below=exact_below, recall=0.95,
    )  # fmt: skip
    assert facts["recall_at_10"] >= 0.95
    assert facts["size"] == faiss.read_index(str(tmp_path / "index.faiss")).ntotal == 3000
    assert facts["type"] == ("IndexHNSWSQ" if exact_below == 0 else "IndexFlatIP")
    assert facts.get("recall_asked") == (0.95 if exact_below == 0 else None)
    assert ("ef_search" in facts) == (exact_below == 0)
