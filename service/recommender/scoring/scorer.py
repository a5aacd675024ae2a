"""Candidates -> the items of an answer, with the parts of their scores and the reasons."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from service.errors import BadQuery
from service.recommender.candidates import POOL, Candidates, CandidateSearch, ResolvedQuery
from service.recommender.factors import User
from service.recommender.query import COMPLEMENTS
from service.recommender.recommendation import Item
from service.recommender.release import Release
from service.recommender.scoring.diversity import diversify
from service.recommender.scoring.explanations import because
from service.recommender.scoring.terms import Sources, best, blend, term_values


@dataclass(frozen=True, slots=True)
class _Chosen:
    """The items of an answer, best first. rows, scores: (k,); parts: (k, terms), which add up to the scores."""

    rows: np.ndarray
    scores: np.ndarray
    names: list[str]
    parts: np.ndarray


class Scorer:
    """Ranks what one release has found."""

    def __init__(self, release: Release, sources: Sources, search: CandidateSearch) -> None:
        self._release, self._sources, self._search = release, sources, search

    def rank(self, asked: Sequence[ResolvedQuery], found: Sequence[Candidates]) -> list[list[Item]]:
        """The k best of each query's candidates, described, with the parts of their scores and the reasons; before
        them the item that the picture shows."""
        rows = [self._search.with_match(*each) for each in zip(asked, found, strict=True)]
        users = [each.user for each in asked]
        votes = [
            None if each.vector is None or worth.near is None else self._search.vote(worth.near)
            for each, worth in zip(asked, found, strict=True)
        ]
        weights = [self._weights(each) for each in asked]
        needed = {name for each in weights for name, weight in each.items() if weight}
        values = term_values(self._sources, rows, [each.vector for each in asked], users, votes, only=needed)
        for each, worth in zip(values, found, strict=True):
            if worth.together is not None:
                each["together"] = worth.together
        chosen = [self._best(*each) for each in zip(asked, rows, values, weights, strict=True)]
        reasons = because(self._sources, [each.rows for each in chosen], users)
        ids, describe = self._release.items.ids, self._release.items.describe
        return [
            [
                Item(
                    score=score, terms=dict(zip(each.names, parts, strict=True)),
                    because=[ids[row] for row in past], **describe(row),
                )
                for row, score, parts, past in zip(
                    each.rows.tolist(), each.scores.tolist(), each.parts.tolist(), pasts, strict=True
                )
            ]
            for each, pasts in zip(chosen, reasons, strict=True)
        ]  # fmt: skip

    def _best(
        self, asked: ResolvedQuery, rows: np.ndarray, values: Mapping[str, np.ndarray], weights: Mapping[str, float]
    ) -> _Chosen:
        query = asked.query
        names, parts = blend(values, weights)
        scores = parts.sum(axis=1)
        ranked = scores
        if asked.match is not None:  # it comes first, whatever the weights say
            ranked = np.where(rows == asked.match.row, np.float32(np.inf), scores)
        wanted = max(POOL, 2 * query.k) if query.diversity > 0 else query.k
        order = best(ranked, len(rows) if self._search.collapses(query) else wanted)
        order = self._search.collapsed(rows, order, query)[:wanted]
        if query.diversity > 0 and len(order):
            vectors = self.likeness_vectors(rows[order])
            worth = scores[order]
            if asked.match is not None:
                worth[0] = worth.max()  # of equals diversity takes the first
            order = order[diversify(worth, vectors, k=query.k, diversity=query.diversity)]
        return _Chosen(rows[order], scores[order], names, parts[order])

    def _weights(self, asked: ResolvedQuery) -> Mapping[str, float]:
        """Of the terms. Raises BadQuery where a release that learned no trade is told how to make it."""
        blend, wanted = self._release.blend, asked.query.personalization
        if asked.tier == COMPLEMENTS:
            return {"together": 1.0}
        user = asked.user
        if asked.tier == "taste" and user is not None and not len(user.history) and user.photos is not None:
            # photos are all that is known: they count as one that is sent does
            return {**blend.tiers["taste"], "own_likeness": blend.tiers["visual"].get("likeness", 1.0)}
        if wanted is None or asked.tier != "ranked":
            return blend.tiers[asked.tier]
        if blend.trade is None:
            raise BadQuery(
                f"release {self._release.number} was trained before `personalization`: leave it out, or train it anew",
                field="personalization",
            )
        return blend.trade.weights(wanted)

    def score(self, user: User | None, rows: Sequence[int] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Factor scores and final scores of items for a user without a photo: (n,), (n,).

        For a user who is not known the factor scores are NaN, and the final ones are those of tier `popular`."""
        asked = np.asarray(rows, dtype=np.int64)
        [values] = term_values(self._sources, [asked], [None], [user], [None])
        _, parts = blend(values, self._release.blend.tiers["taste" if user else "popular"])
        factor = np.full(len(asked), np.nan, np.float32)
        if user is not None and self._release.ranker is not None:
            factor = self._release.ranker.scores(user, asked)
        return factor, parts.sum(axis=1)

    def likeness_vectors(self, rows: np.ndarray) -> np.ndarray:
        """Unit vectors by which two items are alike: of their pictures, else of their factors.

        rows: (n,) -> (n, d) float32."""
        if self._release.index is not None:
            return np.nan_to_num(self._release.index.vectors(rows))
        if self._release.ranker is None:
            return np.zeros((len(rows), 1), np.float32)
        ranker = self._release.ranker
        unit: np.ndarray = ranker.factors_of(rows) * ranker.inverse_lengths[rows, None]
        return unit
