"""How the photos that a release expects are distributed, for drift.json.

The catalogue's own pictures stand for them, each asked as if its item were not there, nor others of nearly the same
picture: a photo of something new lies as near to the items as they lie to each other. Where a column says which items
the encoder did not learn from, those are asked alone.
"""

from collections import Counter
from collections.abc import Sequence

import faiss
import numpy as np

from service.recommender.candidates import Candidates, CandidateSearch, Near, ResolvedQuery
from service.recommender.drift.reference import FEWEST, Bins, Observation, Reference
from service.recommender.index.vector_index import one_thread
from service.recommender.pipeline import Recommender
from service.recommender.query import Query
from training.data.catalogue import Catalogue
from training.data.split import HELD_OUT_SPLITS
from training.progress import track

PHOTOS = 2000  # that are asked at most
FEWEST_HELD_OUT = 200  # that are worth asking alone
CLUSTERS, IN_A_CLUSTER = 24, 20  # of the catalogue: how many, and items in each of them at least
CLUSTERED = 20_000  # items that the clusters are found from
CATEGORIES = 30  # that are told apart
DECILES = np.arange(1, 10) / 10


def rows_to_ask(catalogue: Catalogue, *, split_column: str | None) -> np.ndarray:
    """Rows of the items whose pictures stand for photos: (n,)."""
    rows = catalogue.pictured()
    if split_column is None:
        return rows
    part = catalogue.items[split_column].astype(str).str.lower().to_numpy()
    held_out = rows[np.isin(part[rows], HELD_OUT_SPLITS)]
    return held_out if len(held_out) >= FEWEST_HELD_OUT else rows


def learn(recommender: Recommender, rows: np.ndarray, *, users: Sequence[str], seed: int) -> Reference | None:
    """The reference of a release; None where it has no pictures, or too few. rows: (n,), as `rows_to_ask` gives them;
    users: ids of those whom the release knows."""
    if recommender.release.index is None or len(rows) < FEWEST:
        return None
    rng = np.random.default_rng(seed)
    asked = np.sort(rng.permutation(rows)[:PHOTOS])
    observed, cosines = _Asker(recommender, rng.permutation(sorted(users)).tolist()).ask(asked)
    centroids, clusters = _clusters(recommender, rng)
    bins = Bins(
        centroids=centroids,
        clusters=clusters,
        categories=_most_common(observed),
        likeness=_deciles(cosines),
        scores={
            tier: _deciles(np.array([each.score for each in observed if each.tier == tier]))
            for tier in sorted({each.tier for each in observed} - {""})
        },
    )
    return Reference(bins, bins.count(observed, cosines))


class _Asker:
    """Asks with the pictures of items, each as if that item were not there."""

    def __init__(self, recommender: Recommender, users: Sequence[str]) -> None:
        """users: one in two pictures is asked by one: the score rests on other terms then."""
        self._recommender, self._users = recommender, users
        self._search = CandidateSearch(recommender.release, recommender.sources)
        self._same = recommender.release.items.same()

    def ask(self, rows: np.ndarray) -> tuple[list[Observation], np.ndarray]:
        """What would be answered, and the cosines of the nearest others: (n,) rows -> n, (n,) float32."""
        observed, cosines = [], np.zeros(len(rows), np.float32)
        for at, row in enumerate(track(rows.tolist(), "asking what photos are expected")):
            user = self._users[at // 2 % len(self._users)] if self._users and at % 2 else None
            asked, found = self._without(Query(user_id=user, k=1), row)
            assert found.near is not None, "it has a picture"
            observed.append(self._observe(asked, found, found.near))
            cosines[at] = found.near.cosines.max(initial=0.0)
        return observed, cosines

    def _without(self, query: Query, row: int) -> tuple[ResolvedQuery, Candidates]:
        """What is asked with the picture of an item, and what is found for it."""
        vector = self._search.vector_of_item(Query(item_id=self._recommender.release.items.ids[row]))
        asked = ResolvedQuery(query, vector, self._recommender.users.know(query))
        found = self._search.candidates(asked)
        left_out = np.array([row])
        if self._same is not None and self._same[row]:
            left_out = np.flatnonzero(self._same == self._same[row])
        near = found.near
        if near is not None:
            kept = ~np.isin(near.rows, left_out)
            near = Near(near.rows[kept], near.cosines[kept])
        return asked, Candidates(np.setdiff1d(found.rows, left_out), near)

    def _observe(self, asked: ResolvedQuery, found: Candidates, near: Near) -> Observation:
        assert asked.vector is not None, "it has a picture"
        known = self._search.in_catalogue(near)
        [items] = self._recommender.scorer.rank([asked], [found])
        return Observation(
            vector=asked.vector,
            category=self._recommender.photos.describe(near, in_catalogue=known)["category"],
            in_catalogue=known,
            is_match=False,
            tier=asked.tier if known and items else "",
            score=items[0].score if items else 0.0,
        )


def _clusters(recommender: Recommender, rng: np.random.Generator) -> tuple[np.ndarray, tuple[str, ...]]:
    """Centroids of the items' vectors, by spherical k-means, and each one's nearest item for a name."""
    index, items = recommender.release.index, recommender.release.items
    assert index is not None
    rows = np.sort(rng.permutation(np.flatnonzero(index.pictured))[:CLUSTERED])
    vectors = np.ascontiguousarray(index.vectors(rows))
    clusters = int(np.clip(len(rows) // IN_A_CLUSTER, 1, CLUSTERS))
    with one_thread():  # the order in which threads add up would change the last digits
        found = faiss.Kmeans(vectors.shape[1], clusters, niter=25, seed=0, spherical=True, min_points_per_centroid=1)
        found.train(vectors)
    typical = rows[(vectors @ found.centroids.T).argmax(axis=0)]
    return found.centroids, tuple(items.ids[row] for row in typical.tolist())


def _most_common(observed: Sequence[Observation]) -> tuple[str, ...]:
    counts = Counter(each.category for each in observed if each.category is not None)
    return tuple(sorted(name for name, _ in sorted(counts.items(), key=lambda each: (-each[1], each[0]))[:CATEGORIES]))


def _deciles(values: np.ndarray) -> np.ndarray:
    """(n,) -> (9,), to six digits: the last bits are not the same everywhere."""
    return np.array([float(f"{value:.6g}") for value in np.quantile(values, DECILES)])
