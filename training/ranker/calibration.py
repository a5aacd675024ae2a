"""One scale for the scores of every release.

What a term weighs is learned anew each time, and only the order of the scores is asked of it: as they are, the scores
of two releases differ by factors. So the weights of each tier are divided, and a constant is added: 0 is the score of
an ordinary item, the median over all questions, and 1 one that 95 of 100 do not reach. A threshold that a client
keeps then lets as much pass in the next release. Quantiles, since the terms have long tails on one side, and what
matters to a threshold is the upper end.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from service.recommender.candidates import KIND_VOTERS
from service.recommender.factors import User
from service.recommender.pipeline import Recommender
from service.recommender.scoring.terms import BASE, blend, term_values, vote
from service.recommender.scoring.weights import Blend, Trade

QUESTIONS, ITEMS = 200, 1000  # of each tier, and items drawn for each
GOOD = 0.95  # the share of items that one with score 1 is better than


@dataclass(frozen=True, slots=True)
class _Question:
    """rows: of items drawn at random that could be an answer; photo: vector of a picture, and its votes."""

    rows: np.ndarray
    photo: np.ndarray | None
    user: User | None
    votes: np.ndarray | None


def calibrate(recommender: Recommender, *, seed: int) -> Blend:
    """The blend of a release, its tiers on one scale. A tier that nobody can ask here stays as it is."""
    release = recommender.release
    rng = np.random.default_rng(seed)
    ranker, index = release.ranker, release.index
    known = [] if ranker is None else [ranker.user(int(row)) for row in _draw(np.arange(ranker.users), rng)]
    known = [user for user in known if len(user.history)]
    pictures = np.empty(0, np.int64) if index is None else _draw(np.flatnonzero(index.pictured), rng)

    def ask(user: User | None, picture: int | None) -> _Question:
        left = np.ones(len(release.items), bool)
        if user is not None:
            left[user.seen] = False
        if picture is not None:
            left[picture] = False
        rows = np.sort(rng.permutation(np.flatnonzero(left))[:ITEMS])
        if picture is None or index is None:
            return _Question(rows, None, user, None)
        photo = index.vectors(np.array([picture]))[0]
        near, cosines = (found[0] for found in index.search(photo[None], k=KIND_VOTERS, allowed=left))
        kinds = recommender.sources.kinds
        return _Question(rows, photo, user, None if kinds is None else vote(kinds, near, cosines))

    asked = {
        "popular": [ask(None, None)],
        "taste": [ask(user, None) for user in known],
        "visual": [ask(None, picture) for picture in pictures.tolist()],
        "ranked": [ask(*pair) for pair in zip(known, pictures.tolist(), strict=False)],
    }

    def scale(tier: str) -> tuple[float, float]:
        weights = release.blend.tiers[tier]
        return _scale(_scores(recommender, weights, [each for each in asked[tier] if len(each.rows)]))

    tiers = {tier: _on_scale(weights, *scale(tier)) for tier, weights in release.blend.tiers.items()}
    if (trade := release.blend.trade) is None:
        return Blend(tiers, release.blend.factor_scale)
    ends = (_on_scale(end, *scale("ranked")) for end in (trade.looks, trade.taste))
    made = Trade(trade.default, *ends)
    return Blend(tiers | {"ranked": made.weights(made.default)}, release.blend.factor_scale, made)


def _draw(rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return rng.permutation(rows)[:QUESTIONS]


def _scores(recommender: Recommender, weights: Mapping[str, float], questions: Sequence[_Question]) -> list[np.ndarray]:
    rows, photos, known, votes = (
        [getattr(each, name) for each in questions] for name in ("rows", "photo", "user", "votes")
    )
    found = term_values(recommender.sources, rows, photos, known, votes)
    return [blend(values, weights)[1].sum(axis=1) for values in found]


def _scale(scores: Sequence[np.ndarray]) -> tuple[float, float]:
    """What an ordinary item has, and how much more a good one."""
    if not scores:
        return 0.0, 1.0
    middle, good = np.quantile(np.concatenate(scores), (0.5, GOOD)).tolist()
    return middle, good - middle if good > middle else 1.0


def _on_scale(weights: Mapping[str, float], middle: float, spread: float) -> Mapping[str, float]:
    return {name: brief(weight / spread) for name, weight in weights.items()} | {BASE: brief(-middle / spread)}


def brief(number: float) -> float:
    """Six digits: more say nothing, and the last bits of a product are not the same everywhere."""
    return float(f"{number:.6g}")
