"""Learn the weights of the final sum, tier by tier, on a period that the factors have not seen."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from service.ranker import Blend, Ranker, Shopper
from service.terms import Sources, log_price, scaled_popularity, term_values
from training import ranker
from training.ranker import RankerParameters
from training.sides import Known

SHOPPERS = 800
CANDIDATES = 4000
PENALTY = 1e-3
TOP = 20
ROUNDS = 4
FACTORS = (0.0, 0.25, 0.5, 0.75, 1.33, 2.0, 4.0)

# What serves a tier where there is nothing to learn from.
UNLEARNED = {
    "ranked": {"factor": 0.1, "likeness": 1.0, "own_likeness": 0.1, "popularity": 0.05},
    "visual": {"likeness": 1.0, "popularity": 0.01},
    "taste": {"factor": 1.0, "own_likeness": 1.0, "popularity": 0.5},
    "popular": {"popularity": 1.0},
}


@dataclass(frozen=True, slots=True)
class Choice:
    """One lesson: what a shopper touched next, among what they might have.

    values: term -> (candidates,); chosen: (candidates,) bool."""

    values: dict[str, np.ndarray]
    chosen: np.ndarray


@dataclass(frozen=True, slots=True)
class Lessons:
    """What the blend learns from: the sources as they stood before the period, the shoppers by row of the ranker,
    and what each touched in it that was new to them."""

    sources: Sources
    shoppers: list[int]
    next_items: list[np.ndarray]


def learn(interactions: pd.DataFrame, *, items: int, parameters: RankerParameters, known: Known, seed: int) -> Blend:
    """interactions: the training period, in the order of time. Factors of its first nine tenths judge its last."""
    lessons = look_ahead(interactions, items=items, parameters=parameters, known=known, seed=seed)
    if lessons is None:
        return Blend(UNLEARNED)
    rng = np.random.default_rng(seed)
    tiers = dict(UNLEARNED)
    tiers["taste"], _ = fit([_taste(lessons, at, rng) for at in range(len(lessons.shoppers))])
    tiers["popular"], _ = fit([_taste(lessons, at, rng, known=False) for at in range(len(lessons.shoppers))])
    if known.index is not None and known.views is not None:
        photos = dict(zip(known.views[0].tolist(), known.views[1], strict=True))
        pairs = [
            (at, int(item)) for at, next_items in enumerate(lessons.next_items) for item in next_items if item in photos
        ]
        pairs = [pairs[p] for p in rng.permutation(len(pairs))[:SHOPPERS]]
        if pairs:
            tiers["ranked"], _ = fit([_photo(lessons, at, item, photos[item], rng, known=True) for at, item in pairs])
            tiers["visual"], _ = fit([_photo(lessons, at, item, photos[item], rng, known=False) for at, item in pairs])
    return Blend(tiers)


def rehearse(lessons: Lessons, *, seed: int) -> float:
    """nDCG@TOP that shoppers without a photo would have seen in the lessons' period, with the best weights."""
    rng = np.random.default_rng(seed)
    return fit([_taste(lessons, at, rng) for at in range(len(lessons.shoppers))])[1]


def fit(choices: list[Choice]) -> tuple[dict[str, float], float]:
    """Weights that put the chosen items first, and the nDCG@TOP that they reach.

    They are those of a multinomial logit (McFadden, 1974), then coordinate ascent on nDCG itself, since the
    likelihood also cares for the order far below the top."""
    names = sorted({name for choice in choices for name in choice.values})
    width = max(len(choice.chosen) for choice in choices)
    values = np.zeros((len(choices), width, len(names)), np.float32)
    chosen = np.zeros((len(choices), width), bool)
    real = np.zeros((len(choices), width), bool)
    for line, choice in enumerate(choices):
        n = len(choice.chosen)
        for term, name in enumerate(names):
            values[line, :n, term] = choice.values.get(name, 0.0)
        chosen[line, :n], real[line, :n] = choice.chosen, True
    spread = values[real].std(axis=0)
    spread = np.where(spread > 0, spread, 1.0).astype(np.float32)
    values /= spread
    weights = _climb(values, chosen, real, _logit(values, chosen, real))
    reached = _ndcg(values @ weights, chosen, real)
    return {name: round(float(w / s), 6) for name, w, s in zip(names, weights, spread, strict=True)}, reached


def _logit(values: np.ndarray, chosen: np.ndarray, real: np.ndarray) -> np.ndarray:
    """values: (n, candidates, terms), chosen and real: (n, candidates) bool -> (terms,)."""
    table, hit = torch.from_numpy(values), torch.from_numpy(chosen)
    outside = torch.from_numpy(~real)
    weights = torch.zeros(values.shape[2], requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        log_share = torch.log_softmax((table @ weights).masked_fill(outside, -torch.inf), dim=1)
        total = (
            -(log_share.masked_fill(~hit, 0.0).sum(dim=1) / hit.sum(dim=1)).mean() + PENALTY * weights.square().sum()
        )
        total.backward()
        return total

    optimizer.step(loss)
    return weights.detach().numpy()


def _climb(values: np.ndarray, chosen: np.ndarray, real: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Scale one weight at a time while nDCG grows. The scale of all together does not matter to an order."""
    best, score = weights, _ndcg(values @ weights, chosen, real)
    for _ in range(ROUNDS):
        before = score
        for term in range(len(weights)):
            for factor in FACTORS:
                tried = best.copy()
                tried[term] *= factor
                reached = _ndcg(values @ tried, chosen, real)
                if reached > score + 1e-6:
                    best, score = tried, reached
        if score <= before:
            break
    return best


def _ndcg(scores: np.ndarray, chosen: np.ndarray, real: np.ndarray) -> float:
    """Mean nDCG@TOP. Ties are counted against us: what was chosen comes last among equals."""
    scores = np.where(real, scores, -np.inf)
    k = min(TOP, scores.shape[1])
    best = np.argpartition(-scores, k - 1, axis=1)[:, :k]
    best_scores = np.take_along_axis(scores, best, axis=1)
    hits = np.take_along_axis(chosen, best, axis=1)
    order = np.lexsort((hits, -best_scores))
    discounts = 1 / np.log2(np.arange(2, k + 2))
    gain = (np.take_along_axis(hits, order, axis=1) * discounts).sum(axis=1)
    ideal = np.cumsum(discounts)[np.minimum(chosen.sum(axis=1), k) - 1]
    return float((gain / ideal).mean())


def look_ahead(
    interactions: pd.DataFrame, *, items: int, parameters: RankerParameters, known: Known, seed: int,
    shoppers: int = SHOPPERS,
) -> Lessons | None:  # fmt: skip
    """Train on the first nine tenths, look at what is touched in the last one. None where nobody comes back."""
    cut = int(len(interactions) * 0.9)
    before, after = interactions.iloc[:cut], interactions.iloc[cut:]
    if before.empty or after.empty:
        return None
    made = ranker.train(before, items=items, parameters=parameters, user_key="", sides=known.sides, quiet=True)
    row_of = {user: row for row, user in enumerate(made.users)}
    found = {
        row_of[user]: np.setdiff1d(items_after.unique(), made.ranker.shopper(row_of[user]).seen)
        for user, items_after in after.groupby("user_id", sort=True)["item"]
        if user in row_of and len(made.ranker.shopper(row_of[user]).history)
    }
    rows = [row for row, new in found.items() if len(new)]
    if not rows:
        return None
    chosen = np.random.default_rng(seed).permutation(rows)[:shoppers].tolist()
    counts = np.bincount(made.arrays["history_items"], minlength=items)
    sources = Sources(known.index, made.ranker, scaled_popularity(counts), log_price(known.prices))
    return Lessons(sources, chosen, [found[row] for row in chosen])


def _taste(lessons: Lessons, at: int, rng: np.random.Generator, *, known: bool = True) -> Choice:
    shopper = _ranker(lessons).shopper(lessons.shoppers[at])
    rows, chosen = _candidates(lessons, shopper, lessons.next_items[at], rng)
    return Choice(term_values(lessons.sources, rows, None, shopper if known else None), chosen)


def _photo(lessons: Lessons, at: int, item: int, photo: np.ndarray, rng: np.random.Generator, *, known: bool) -> Choice:
    """A photograph of the item that the shopper touched next is sent; it should come first."""
    shopper = _ranker(lessons).shopper(lessons.shoppers[at])
    rows, chosen = _candidates(lessons, shopper, np.array([item]), rng)
    return Choice(term_values(lessons.sources, rows, photo, shopper if known else None), chosen)


def _candidates(
    lessons: Lessons, shopper: Shopper, touched: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Rows to choose from, and which of them were chosen: what was touched, and others drawn at random."""
    items = len(lessons.sources.popularity)
    others = np.setdiff1d(rng.permutation(items)[:CANDIDATES], np.union1d(shopper.seen, touched))
    rows = np.concatenate([touched, others])
    return rows, np.arange(len(rows)) < len(touched)


def _ranker(lessons: Lessons) -> Ranker:
    assert lessons.sources.ranker is not None
    return lessons.sources.ranker
