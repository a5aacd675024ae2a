"""How the photos that a release expects are distributed, for drift.json.

The catalogue's own pictures stand for them, each asked as if its item were not there: a photo of something new lies as
near to the others as they lie to each other. Where a column says which items the encoder did not learn from, those are
asked alone.
"""

from collections import Counter
from collections.abc import Sequence

import faiss
import numpy as np

from service.recommender.candidates import Candidates, CandidateSearch, Near, ResolvedQuery
from service.recommender.drift.reference import Bins, Observation, Reference
from service.recommender.index.vector_index import one_thread
from service.recommender.pipeline import Recommender
from service.recommender.query import Query
from training.data.catalogue import Catalogue
from training.data.split import HELD_OUT_SPLITS
from training.progress import track

PHOTOS = 2000  # that are asked at most
FEWEST = 200  # held-out ones that are worth asking alone
CORNERS, IN_A_CORNER = 24, 20  # of the catalogue: how many, and items in each of them at least
CLUSTERED = 20_000  # items that the corners are found from
CATEGORIES = 30  # that are told apart
DECILES = np.arange(1, 10) / 10


def rows_to_ask(catalogue: Catalogue, *, split_column: str | None) -> np.ndarray:
    """Rows of the items whose pictures stand for photos: (n,)."""
    rows = catalogue.pictured()
    if split_column is None:
        return rows
    part = catalogue.items[split_column].astype(str).str.lower().to_numpy()
    held_out = rows[np.isin(part[rows], HELD_OUT_SPLITS)]
    return held_out if len(held_out) >= FEWEST else rows


def learn(recommender: Recommender, rows: np.ndarray, *, users: Sequence[str], seed: int) -> Reference | None:
    """The reference of a release; None where it has no pictures. rows: (n,), as `rows_to_ask` gives them; users: ids
    of those whom the release knows."""
    index = recommender.release.index
    if index is None or not len(rows):
        return None
    rng = np.random.default_rng(seed)
    asked = np.sort(rng.permutation(rows)[:PHOTOS])
    observed, cosines = _ask(recommender, asked, rng.permutation(sorted(users)).tolist())
    centroids, corners = _corners(recommender, rng)
    bins = Bins(
        centroids=centroids,
        corners=corners,
        categories=_most_common(observed),
        likeness=_deciles(cosines),
        scores={
            tier: _deciles(np.array([each.score for each in observed if each.tier == tier]))
            for tier in sorted({each.tier for each in observed} - {""})
        },
    )
    return Reference(bins, bins.count(observed, cosines))


def _ask(recommender: Recommender, rows: np.ndarray, users: Sequence[str]) -> tuple[list[Observation], np.ndarray]:
    """What would be answered to each picture if its item were not there, and the cosines of the nearest others.

    One in two is asked by a user: the score rests on other terms then. rows: (n,) -> n, (n,) float32."""
    search = CandidateSearch(recommender.release, recommender.sources)
    observed, cosines = [], np.zeros(len(rows), np.float32)
    for at, row in enumerate(track(rows.tolist(), "asking what photos are expected")):
        query = Query(user_id=users[at // 2 % len(users)] if users and at % 2 else None, k=1)
        others = _others(recommender, search, query, row)
        observed.append(_observe(recommender, search, *others))
        cosines[at] = max(others[1].cosines, default=0.0)
    return observed, cosines


def _others(
    recommender: Recommender, search: CandidateSearch, query: Query, row: int
) -> tuple[ResolvedQuery, Near, Candidates]:
    """What is asked with the picture of an item, what is near it, and what may be answered, without that item."""
    vector = search.vector_of_item(Query(item_id=recommender.release.items.ids[row]))
    asked = ResolvedQuery(query, vector, recommender.users.know(query))
    found = search.candidates(asked)
    assert found.near is not None, "it has a vector"
    kept = found.near.rows != row
    near = Near(found.near.rows[kept], found.near.cosines[kept])
    return asked, near, Candidates(found.rows[found.rows != row], near)


def _observe(
    recommender: Recommender, search: CandidateSearch, asked: ResolvedQuery, near: Near, found: Candidates
) -> Observation:
    assert asked.vector is not None
    known = search.in_catalogue(near)
    [items] = recommender.scorer.rank([asked], [found])
    return Observation(
        vector=asked.vector,
        category=recommender.photos.describe(near, in_catalogue=known)["category"],
        in_catalogue=known,
        is_match=False,
        tier=asked.tier if known and items else "",
        score=items[0].score if items else 0.0,
    )


def _corners(recommender: Recommender, rng: np.random.Generator) -> tuple[np.ndarray, tuple[str, ...]]:
    """Centroids of the items' vectors, by spherical k-means, and each one's nearest item for a name."""
    index, items = recommender.release.index, recommender.release.items
    assert index is not None
    rows = np.sort(rng.permutation(np.flatnonzero(index.pictured))[:CLUSTERED])
    vectors = np.ascontiguousarray(index.vectors(rows))
    corners = int(np.clip(len(rows) // IN_A_CORNER, 1, CORNERS))
    with one_thread():  # the order in which threads add up would change the last digits
        found = faiss.Kmeans(vectors.shape[1], corners, niter=25, seed=0, spherical=True, min_points_per_centroid=1)
        found.train(vectors)
    typical = rows[(vectors @ found.centroids.T).argmax(axis=0)]
    return found.centroids, tuple(items.ids[row] for row in typical.tolist())


def _most_common(observed: Sequence[Observation]) -> tuple[str, ...]:
    counts = Counter(each.category for each in observed if each.category is not None)
    return tuple(sorted(name for name, _ in sorted(counts.items(), key=lambda each: (-each[1], each[0]))[:CATEGORIES]))


def _deciles(values: np.ndarray) -> np.ndarray:
    """(n,) -> (9,), to six digits: the last bits are not the same everywhere."""
    return np.array([float(f"{value:.6g}") for value in np.quantile(values, DECILES)])
