"""drift.json: how the photos that a release expects are distributed, and which bin of that a photo falls into.

training/packaging/expected_photos.py makes it. There are five distributions: which cluster of the catalogue's vectors
a photo lies in (embeddings), the category that it seems to be of, whether it is of this kind of catalogue at all, how
near the nearest item is (likeness), and the score of the best item.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from service.errors import ReleaseTooNew
from service.files import write_text
from service.recommender.drift.stability import Drift, Shift
from service.recommender.index.vector_index import Index
from service.recommender.query import Query, SimilarQuery
from service.recommender.recommendation import Recommendation

FILE, VERSION = "drift.json", 1
FEWEST = 50  # pictures that a reference is made of
EMBEDDINGS, CATEGORIES, IN_CATALOGUE, LIKENESS, SCORES = WHAT = (
    "embeddings", "categories", "in_catalogue", "likeness", "scores",
)  # fmt: skip
OTHER = "other, or none"  # categories
FOREIGN, KNOWN = "something else", "in the catalogue"
TENTHS = tuple(f"tenth {number}" for number in range(1, 11))

Counts = Mapping[str, np.ndarray]  # what -> (bins,) int64, photos


@dataclass(frozen=True, slots=True)
class Observation:
    """What an answer says of one photo. vector: (dim,) float32, unit length; is_match: it shows an item; tier: what the
    score of the best item rests on, "" where the request itself limits what that can be."""

    vector: np.ndarray
    category: str | None
    in_catalogue: bool
    is_match: bool
    tier: str
    score: float


def observe(query: Query | SimilarQuery, vector: np.ndarray, answer: Recommendation) -> Observation:
    """vector: (dim,), of the query's photo."""
    said = answer.query or {}
    scored = isinstance(query, Query) and not query.filter and query.personalization is None and answer.items
    return Observation(
        vector=vector,
        category=said.get("category"),
        in_catalogue=bool(said.get("in_catalogue")),
        is_match=answer.match is not None,
        tier=answer.tier if scored else "",
        score=answer.items[0].score if scored else 0.0,
    )


def nearest(index: Index, observed: Sequence[Observation]) -> np.ndarray:
    """The cosine of the nearest item: (n,) float32."""
    found: np.ndarray = index.search(np.stack([each.vector for each in observed]), k=1)[1][:, 0]
    return found


@dataclass(frozen=True, slots=True)
class Bins:
    """Where a photo is counted. centroids: (clusters, dim) float32; clusters: the item that stands for each; likeness:
    (9,), the deciles; scores: the same for each tier."""

    centroids: np.ndarray
    clusters: tuple[str, ...]
    categories: tuple[str, ...]
    likeness: np.ndarray
    scores: Mapping[str, np.ndarray]

    def names(self) -> dict[str, tuple[str, ...]]:
        """what -> a name for each bin."""
        return {
            EMBEDDINGS: self.clusters, CATEGORIES: (*self.categories, OTHER), IN_CATALOGUE: (FOREIGN, KNOWN),
            LIKENESS: TENTHS, SCORES: TENTHS,
        }  # fmt: skip

    def count(self, observed: Sequence[Observation], cosines: np.ndarray) -> Counts:
        """Count photos. cosines: (n,), of the item nearest to each.

        One that shows an item is nearer to it than any other photo is to anything: of likeness and score it says
        nothing."""
        category = {name: place for place, name in enumerate(self.categories)}
        unmatched = [at for at, each in enumerate(observed) if not each.is_match]
        places = {
            EMBEDDINGS: (np.stack([each.vector for each in observed]) @ self.centroids.T).argmax(axis=1),
            CATEGORIES: [category.get(each.category or "", len(category)) for each in observed],
            IN_CATALOGUE: [int(each.in_catalogue) for each in observed],
            LIKENESS: np.searchsorted(self.likeness, cosines[unmatched], side="right"),
            SCORES: [
                int(np.searchsorted(self.scores[observed[at].tier], observed[at].score, side="right"))
                for at in unmatched
                if observed[at].tier in self.scores
            ],
        }
        sizes = {what: len(names) for what, names in self.names().items()}
        return {what: np.bincount(np.asarray(places[what], np.int64), minlength=size) for what, size in sizes.items()}


@dataclass(frozen=True, slots=True)
class Reference:
    """The bins, and the photos of the reference in each of them."""

    bins: Bins
    expected: Counts

    @classmethod
    def open(cls, path: Path) -> "Reference":
        """Read drift.json. Raises ReleaseTooNew, and ValueError or KeyError where it is damaged."""
        said: dict[str, Any] = json.loads(path.read_text())
        if said["version"] > VERSION:
            raise ReleaseTooNew(f"{path} has version {said['version']}; this code reads {VERSION}: upgrade vitrine")
        bins = Bins(
            centroids=np.array(said["centroids"], np.float32),
            clusters=tuple(said["clusters"]),
            categories=tuple(said["categories"]),
            likeness=np.array(said["likeness"]),
            scores={tier: np.array(deciles) for tier, deciles in said["scores"].items()},
        )
        return cls(bins, {what: np.array(said["expected"][what], np.int64) for what in WHAT})

    def save(self, path: Path) -> None:
        """Write drift.json."""
        bins = self.bins
        said = {
            "version": VERSION,
            "centroids": [[round(part, 5) for part in centroid] for centroid in bins.centroids.tolist()],
            "clusters": bins.clusters,
            "categories": bins.categories,
            "likeness": bins.likeness.tolist(),
            "scores": {tier: deciles.tolist() for tier, deciles in bins.scores.items()},
            "expected": {what: counts.tolist() for what, counts in self.expected.items()},
        }
        write_text(path, json.dumps(said, sort_keys=True) + "\n")

    @property
    def dim(self) -> int:
        """Of the vectors."""
        return int(self.bins.centroids.shape[1])

    def empty(self) -> Counts:
        """No photo yet."""
        return {what: np.zeros_like(counts) for what, counts in self.expected.items()}

    def compare(self, release: str, seen: Counts, *, seconds: float | None) -> Drift:
        """Hold what was seen against what is expected. A distribution with one bin, or without a photo on either side,
        says nothing, and is left out."""
        names = self.bins.names()
        shifts = tuple(
            Shift.measure(what, names[what], self.expected[what], seen[what])
            for what in WHAT
            if len(names[what]) > 1 and seen[what].any() and self.expected[what].any()
        )
        return Drift(release, int(seen[EMBEDDINGS].sum()), seconds, shifts)


def why_not(expected: Reference | None, *, pictured: bool) -> str:
    """Why a release's drift cannot be measured; "" where it can. pictured: it has pictures."""
    if expected is not None:
        return ""
    if not pictured:
        return "the release has no pictures"
    return f"the release was packaged without {FILE}: by an earlier vitrine, or from fewer than {FEWEST} pictures"
