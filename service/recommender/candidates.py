"""Which items are worth ranking for a query, and which of them may stand in one answer."""

from dataclasses import dataclass

import numpy as np

from service.errors import BadQuery
from service.recommender.catalogue.items import GROUP
from service.recommender.factors import User
from service.recommender.index.in_catalogue import CROWD
from service.recommender.index.recognition import Match
from service.recommender.query import COMPLEMENTS, Query, SimilarQuery
from service.recommender.release import Release
from service.recommender.scoring.terms import Sources, own_vector, vote

POOL = 500  # candidates from each source, before they are ranked
VARIANTS = 4  # times as many where an answer shows one of several
VOTERS = 10  # neighbours that vote on the category of a picture, in the reply
KIND_VOTERS = 25  # ... and for the term `kind`
_NOTHING = np.empty(0, np.int64)


@dataclass(frozen=True, slots=True)
class ResolvedQuery:
    """A query, the vector of its picture, who asks, as far as they are known, and the item that the picture shows."""

    query: Query
    vector: np.ndarray | None
    user: User | None
    match: Match | None = None

    @property
    def tier(self) -> str:
        """What the answer rests on."""
        if self.query.relation == COMPLEMENTS:
            return COMPLEMENTS
        if self.vector is not None:
            return "ranked" if self.user else "visual"
        return "taste" if self.user else "popular"


@dataclass(frozen=True, slots=True)
class Near:
    """Items near a picture, nearest first: (n,) each."""

    rows: np.ndarray
    cosines: np.ndarray


@dataclass(frozen=True, slots=True)
class Candidates:
    """What is worth ranking for a query, and the items nearest to its picture, whatever was asked to be left out."""

    rows: np.ndarray
    near: Near | None
    together: np.ndarray | None = None  # of complements: (n,) float32 beside the rows


class CandidateSearch:
    """Finds candidates in one release."""

    def __init__(self, release: Release, sources: Sources) -> None:
        self.release, self.sources = release, sources

    def candidates(self, asked: ResolvedQuery) -> Candidates:
        """Rows worth ranking: the picture's neighbours, the user's taste, and what is popular if they are few."""
        k, vector, user = asked.query.k, asked.vector, asked.user
        if asked.tier == COMPLEMENTS:  # which it takes no likeness or taste to find
            return Candidates(_NOTHING, None if vector is None else self.nearest(vector, CROWD))
        allowed = self.allowed(asked.query, user)
        pool = self.pool(asked.query)
        found = []
        near = None
        if vector is not None:
            near, like = self._near_and_allowed(asked.query, vector, user, allowed, pool)
            found.append(like)
        if user is not None and self.release.ranker is not None:
            found.append(self.release.ranker.top(user, k=pool, allowed=allowed))
        if user is not None and vector is None and self.release.index is not None:
            own = own_vector(self.release.index, user)
            if own.any():
                found.append(self.nearest(own, pool, allowed).rows)
        # in the order of rows, so that equal scores are answered in it as well
        rows = np.sort(found[0]) if len(found) == 1 else np.unique(np.concatenate([_NOTHING, *found]))
        if len(rows) < k:
            rows = np.union1d(rows, self.release.items.most_popular(pool, allowed))
        return Candidates(rows, near)

    def _near_and_allowed(
        self, query: Query, vector: np.ndarray, user: User | None, allowed: np.ndarray | None, pool: int
    ) -> tuple[Near, np.ndarray]:
        """What is nearest to a picture, and the rows of the nearest that may be an answer."""
        if allowed is None:
            near = self.nearest(vector, pool)
            return near, near.rows
        left_out = self._left_out(query, user)
        if query.filter or len(left_out) > pool:
            return self.nearest(vector, CROWD), self.nearest(vector, pool, allowed).rows
        # one search for both, of as many more as are left out; what was withdrawn has no picture to be found by
        near = self.nearest(vector, pool + len(left_out))
        return near, near.rows[allowed[near.rows]][:pool]

    def allowed(self, query: Query | SimilarQuery, user: User | None = None) -> np.ndarray | None:
        """(items,) bool: what may be an answer; None: all."""
        allowed = self.release.items.mask(query.filter)
        left_out = self._left_out(query, user)
        if len(left_out):
            allowed = np.ones(len(self.release.items), bool) if allowed is None else allowed.copy()
            allowed[left_out] = False
        return allowed

    def _left_out(self, query: Query | SimilarQuery, user: User | None) -> np.ndarray:
        """The item that is asked about, and those that the user has seen, where these are to be left out: (n,) rows."""
        leave = [] if query.item_id is None else [np.array([self.release.items.row(query.item_id)])]
        if user is not None and isinstance(query, Query) and query.exclude_seen:
            leave.append(user.seen)
        return np.concatenate([_NOTHING, *leave])

    def enough(self, query: Query | SimilarQuery) -> int:
        """How many of the best make an answer, once those that may not stand in it together are left out."""
        return self.pool(query) if self.collapses(query) else query.k

    def pool(self, query: Query | SimilarQuery) -> int:
        """How many candidates of each source: more where many of them are to be one item of the answer."""
        pool = max(POOL, 2 * query.k)
        return VARIANTS * pool if self.collapses(query) else pool

    def require_known(self, query: Query | SimilarQuery) -> None:
        """Raises BadQuery, NotFound where a query asks for what this release cannot tell."""
        number = self.release.number
        if query.item_id is not None:
            self.release.items.row(query.item_id)
        if query.per_group is not None and self.release.items.groups() is None:
            raise BadQuery(
                f"release {number} has no column `{GROUP}` that says which items are variants of one product: leave "
                "`per_group` out",
                field="per_group",
            )
        if query.distinct and self.release.items.same() is None:
            raise BadQuery(
                f"release {number} was trained before near-duplicates were looked for, or has no pictures: leave "
                "`distinct` out, or train it anew",
                field="distinct",
            )
        ranker = self.release.ranker
        complements = isinstance(query, Query) and query.relation == COMPLEMENTS
        if complements and (ranker is None or ranker.together is None):
            raise BadQuery(
                f"release {number} does not know what is bought together: it was made without interactions, or before "
                "`relation`",
                field="relation",
            )

    def vector_of_item(self, query: Query | SimilarQuery) -> np.ndarray | None:
        """The vector of the item that a query names, or None. Raises BadQuery where it is needed and there is none.

        -> (dim,)."""
        if query.item_id is None:
            return None
        row, index = self.release.items.row(query.item_id), self.release.index
        if index is not None and index.pictured[row]:
            vector: np.ndarray = index.vectors(np.array([row]))[0]
            return vector
        if isinstance(query, Query) and query.relation == COMPLEMENTS:
            return None
        raise BadQuery(f"item {query.item_id!r} has no picture to compare", field="item_id")

    def complements(self, asked: ResolvedQuery, worth: Candidates) -> Candidates:
        """What goes with the item that is asked about or that the photo shows; where that was never touched with
        another, with what looks like it."""
        ranker, kinds = self.release.ranker, self.sources.kinds
        assert ranker is not None
        assert ranker.together is not None
        named = None if asked.query.item_id is None else self.release.items.row(asked.query.item_id)
        about = named if asked.match is None else asked.match.row
        near = Near(_NOTHING, np.empty(0, np.float32)) if worth.near is None else worth.near
        if about is not None and len(ranker.together.of(about)[0]):
            weights = ranker.together.total(np.array([about]), np.ones(1), ranker.items)
        else:
            weights = ranker.together.total(near.rows[:VOTERS], np.maximum(near.cosines[:VOTERS], 0), ranker.items)
            weights[near.rows[:VOTERS]] = 0
        if about is not None:
            weights[about] = 0
        kind = 0
        if kinds is not None:
            kind = int(self.vote(near).argmax()) if about is None else int(kinds[about])
        if kinds is not None and kind:
            weights[kinds == kind] = 0
        allowed = self.allowed(asked.query, asked.user)
        if allowed is not None:
            weights[~allowed] = 0
        found = np.flatnonzero(weights > 0)
        return Candidates(found, worth.near, weights[found].astype(np.float32))

    def nearest(self, vector: np.ndarray, k: int, allowed: np.ndarray | None = None) -> Near:
        """The items nearest to a vector, of those allowed. vector: (dim,); allowed: (items,) bool."""
        assert self.release.index is not None
        rows, cosines = self.release.index.search(vector[None], k=k, allowed=allowed)
        found = rows[0] >= 0
        return Near(rows[0][found], cosines[0][found])

    def with_match(self, asked: ResolvedQuery, found: Candidates) -> np.ndarray:
        """The candidates with the item that the picture shows, unless the filter forbids it. -> (n,) rows."""
        if asked.match is None or asked.tier == COMPLEMENTS:
            return found.rows
        allowed = self.release.items.mask(asked.query.filter)
        if allowed is not None and not allowed[asked.match.row]:
            return found.rows
        return np.union1d(found.rows, [asked.match.row])

    def collapses(self, query: Query | SimilarQuery) -> bool:
        """Whether some items may not stand in one answer."""
        return self.release.items.groups() is not None or query.distinct

    def collapsed(self, rows: np.ndarray, order: np.ndarray, query: Query | SimilarQuery) -> np.ndarray:
        """Positions among rows, best first, without variants of one product beyond `per_group`, and without a second
        of nearly the same picture where `distinct` is asked. The item that is asked about is one of its product.
        rows: (n,); order: (m,) positions -> (at most m,)."""
        named = None if query.item_id is None else self.release.items.row(query.item_id)
        groups, same = self.release.items.groups(), self.release.items.same()
        if groups is not None:
            order = _at_most(groups, rows, order, query.per_group or 1, named)
        if query.distinct and same is not None:
            order = _at_most(same, rows, order, 1, named)
        return order

    def vote(self, near: Near) -> np.ndarray:
        """(categories + 1,): what a picture seems to be, see `terms.vote`."""
        assert self.sources.kinds is not None
        return vote(self.sources.kinds, near.rows[:KIND_VOTERS], near.cosines[:KIND_VOTERS])

    def in_catalogue(self, near: Near) -> bool:
        """Whether what is near a picture is near enough for it to show something of this kind of catalogue."""
        index, familiarity = self.release.manifest.index, self.release.familiarity
        if familiarity is not None:
            return familiarity.known(near.rows, near.cosines, self.sources.kinds)
        # a release made before several signs were weighed
        return index is None or bool(near.cosines.max(initial=-1) >= index["in_catalogue_at"])


def _at_most(numbers: np.ndarray, rows: np.ndarray, order: np.ndarray, most: int, named: int | None) -> np.ndarray:
    """The positions in `order`, best first, but for those whose number `most` before them have; 0 counts as none.

    numbers: (items,); rows: (n,) items; named: an item that counts as the very first."""
    own = numbers[rows[order]]
    if named is not None:
        own = np.concatenate([[numbers[named]], own])
    by = np.argsort(own, kind="stable")
    starts = np.flatnonzero(np.diff(own[by], prepend=-1))
    place = np.empty(len(own), np.int64)
    place[by] = np.arange(len(own)) - np.repeat(starts, np.diff(np.append(starts, len(own))))
    kept = (own == 0) | (place < most)
    return order[kept if named is None else kept[1:]]
