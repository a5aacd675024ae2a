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

from service.pipeline import Recommender
from service.ranker import Blend, Shopper
from service.terms import BASE, blend, term_values

QUESTIONS, ITEMS = 200, 1000  # of each tier, and items drawn for each
GOOD = 0.95  # the share of items that one with score 1 is better than


@dataclass(frozen=True, slots=True)
class _Question:
    """rows: of items drawn at random that could be an answer; photo: vector of a picture."""

    rows: np.ndarray
    photo: np.ndarray | None
    shopper: Shopper | None


def calibrate(recommender: Recommender, *, seed: int) -> Blend:
    """The blend of a release, its tiers on one scale. A tier that nobody can ask here stays as it is."""
    release = recommender.release
    rng = np.random.default_rng(seed)
    ranker, index = release.ranker, release.index
    shoppers = [] if ranker is None else [ranker.shopper(int(row)) for row in _draw(np.arange(ranker.users), rng)]
    shoppers = [shopper for shopper in shoppers if len(shopper.history)]
    pictures = np.empty(0, np.int64) if index is None else _draw(np.flatnonzero(index.pictured), rng)

    def ask(shopper: Shopper | None, picture: int | None) -> _Question:
        left = np.ones(len(release.items), bool)
        if shopper is not None:
            left[shopper.seen] = False
        if picture is not None:
            left[picture] = False
        rows = np.sort(rng.permutation(np.flatnonzero(left))[:ITEMS])
        return _Question(
            rows, None if picture is None or index is None else index.vectors(np.array([picture]))[0], shopper
        )

    asked = {
        "popular": [ask(None, None)],
        "taste": [ask(shopper, None) for shopper in shoppers],
        "visual": [ask(None, picture) for picture in pictures.tolist()],
        "ranked": [ask(*pair) for pair in zip(shoppers, pictures.tolist(), strict=False)],
    }
    tiers = {
        tier: _on_scale(weights, _scores(recommender, weights, [each for each in asked[tier] if len(each.rows)]))
        for tier, weights in release.blend.tiers.items()
    }
    return Blend(tiers, release.blend.factor_scale)


def _draw(rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return rng.permutation(rows)[:QUESTIONS]


def _scores(recommender: Recommender, weights: Mapping[str, float], questions: Sequence[_Question]) -> list[np.ndarray]:
    rows, photos, shoppers = ([getattr(each, name) for each in questions] for name in ("rows", "photo", "shopper"))
    found = term_values(recommender.sources, rows, photos, shoppers)
    return [blend(values, weights)[1].sum(axis=1) for values in found]


def _on_scale(weights: Mapping[str, float], scores: Sequence[np.ndarray]) -> Mapping[str, float]:
    if not scores:
        return weights
    middle, good = np.quantile(np.concatenate(scores), (0.5, GOOD)).tolist()
    spread = good - middle if good > middle else 1.0
    return {name: _brief(weight / spread) for name, weight in weights.items()} | {BASE: _brief(-middle / spread)}


def _brief(number: float) -> float:
    """Six digits: more say nothing, and the last bits of a product are not the same everywhere."""
    return float(f"{number:.6g}")
