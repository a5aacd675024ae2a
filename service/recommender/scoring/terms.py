"""The named terms of the final score, for training and serving alike.

    factor        what people with like tastes touched: user factor times item factor, on a logarithmic scale
    likeness      cosine with the picture of the query
    kind          the share of the votes of the items nearest to the picture that are for the item's category
    own_likeness  cosine with the user's own pictures, their mean
    recent        cosine of factors with the user's last items, each weighing 0.8 of the one after it
    item_to_item  what those touched who touched the user's items: a linear model of items by items (EASE)
    price_fit     how near the price is to what the user chose before: minus the squared difference of logarithms
    popularity    log(1 + times touched), 1 for the most popular item
    trend         logarithm of how much more it is touched of late than over the whole log

score = sum over terms of weight x value; the weights are learned for each tier (training/ranker/term_weights.py). A sum
of logarithms is a product: an item that trends twice as much is as good as one that fits twice as well.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from service.recommender.factors import Ranker, User
from service.recommender.index.vector_index import Index
from service.recommender.scoring.weights import FACTOR_SCALE

RECENT = 100  # of the user's items, whose pictures are compared
LAST = 10  # of the user's items, for the term `recent`
FADED = 0.8 ** np.arange(LAST - 1, -1, -1, dtype=np.float32)  # their weights, the very last one's last
PRICE = "price"
TERMS = (
    "factor", "likeness", "kind", "own_likeness", "recent", "item_to_item", "price_fit", "popularity", "trend",
)  # fmt: skip
BASE = "base"  # the term that has an ordinary item score 0
TOGETHER = 128  # queries whose candidates are gathered once
ALONE = 16  # queries up to which each is computed by itself, as many as the service ever has at once
_NOTHING = np.empty(0, np.int64)


@dataclass(slots=True)
class Sources:
    """What the terms are computed from. index and ranker are None where the catalogue has no pictures or no
    interactions; popularity: (items,), from 0 to 1; log_price: (items,), NaN where unknown, or None;
    factor_scale: that of the blend;
    kinds: (items,) the number of each one's category, 0 where unknown, or None."""

    index: Index | None
    ranker: Ranker | None
    popularity: np.ndarray
    log_price: np.ndarray | None = None
    factor_scale: float | None = FACTOR_SCALE
    kinds: np.ndarray | None = None


def term_values(
    sources: Sources,
    rows: Sequence[np.ndarray],
    vectors: Sequence[np.ndarray | None],
    users: Sequence[User | None],
    votes: Sequence[np.ndarray | None],
    *,
    only: Collection[str] = TERMS,
) -> list[dict[str, np.ndarray]]:
    """For each query its candidates (n,), the vector of its picture, its user, and what its neighbours voted for
    (see `vote`) -> name: (n,) float32, only the terms that the sources and the query allow.

    only: names of those that are needed."""
    values: list[dict[str, np.ndarray]] = []
    # the last bits of a product depend on what else is in it, and those of an answer should not on who else asks
    together = 1 if len(rows) <= ALONE else TOGETHER
    for start in range(0, len(rows), together):
        part = slice(start, start + together)
        values += _values_together(sources, rows[part], vectors[part], users[part], only)
    if sources.kinds is not None and "kind" in only:
        for each, row, voted in zip(values, rows, votes, strict=True):
            if voted is not None:
                each["kind"] = voted[sources.kinds[row]]
    return values


def vote(kinds: np.ndarray, rows: np.ndarray, cosines: np.ndarray) -> np.ndarray:
    """What a picture seems to be: each category's share of the votes of the items nearest to it, each of which weighs
    its cosine. kinds: (items,) as in `Sources`; rows, cosines: (n,), as a search gives them, -1 where there are no more
    -> (categories + 1,) float32, 0 for the unknown."""
    there = rows >= 0
    weights = np.maximum(cosines[there], 0)
    found = np.bincount(kinds[rows[there]], weights, minlength=int(kinds.max(initial=0)) + 1)
    found[0] = 0
    shares: np.ndarray = (found / max(float(weights.sum()), 1e-9)).astype(np.float32)
    return shares


def _values_together(
    sources: Sources,
    rows: Sequence[np.ndarray],
    vectors: Sequence[np.ndarray | None],
    users: Sequence[User | None],
    needed: Collection[str],
) -> list[dict[str, np.ndarray]]:
    """Candidates that several queries share are gathered once, and compared in one product."""
    table, places = _shared(rows, len(sources.popularity))
    products: dict[str, dict[int, np.ndarray]] = {}
    known = [(at, user) for at, user in enumerate(users) if user is not None]
    if sources.ranker is not None and known:
        ranker = sources.ranker
        factors = ranker.factors_of(table) if "factor" in needed or "recent" in needed else _NOTHING
        if "factor" in needed:
            products["factor"] = _products([(at, user.factor) for at, user in known], factors)
        if "recent" in needed:
            last = [(at, _last_factors(ranker, user.history[-LAST:])) for at, user in known]
            products["recent"] = _products(last, factors, ranker.inverse_lengths[table])
    sent = [(at, vector) for at, vector in enumerate(vectors) if vector is not None]
    likeness, own_likeness = sent and "likeness" in needed, known and "own_likeness" in needed
    if sources.index is not None and (likeness or own_likeness):
        pictures = sources.index.vectors_or_zero(table)
        if likeness and sources.index.most > 1:  # an item with several pictures is as near as the nearest of them
            cosines = sources.index.cosines(np.array([vector for _, vector in sent]), table)
            products["likeness"] = {at: line for (at, _), line in zip(sent, cosines, strict=True)}
        elif likeness:
            products["likeness"] = _products(sent, pictures)
        if own_likeness:
            own = [(at, _unit(own_vector(sources.index, user))) for at, user in known]
            products["own_likeness"] = _products(own, pictures)
    values = [
        {name: found[at][place] for name, found in products.items() if at in found}
        | _of_items(sources, row, user, needed)
        for at, (row, place, user) in enumerate(zip(rows, places, users, strict=True))
    ]
    for each in values:
        if "factor" in each:
            each["factor"] = factor_term(each["factor"], sources.factor_scale)
    return values


def _shared(rows: Sequence[np.ndarray], items: int) -> tuple[np.ndarray, list[Any]]:
    """All rows once, and where those of each query are among them."""
    if len(rows) == 1:
        return rows[0], [slice(None)]
    wanted = np.zeros(items, bool)
    for row in rows:
        wanted[row] = True
    position = np.cumsum(wanted) - 1
    return np.flatnonzero(wanted), [position[row] for row in rows]


def _products(
    queries: list[tuple[int, np.ndarray]], table: np.ndarray, scale: np.ndarray | None = None
) -> dict[int, np.ndarray]:
    """(position, vector) of each query -> position: its product with every row of the table, each times its scale."""
    if not queries:
        return {}
    scores = np.array([vector for _, vector in queries]) @ table.T
    if scale is not None:
        scores *= scale
    return {at: line for (at, _), line in zip(queries, scores, strict=True)}


def _of_items(sources: Sources, rows: np.ndarray, user: User | None, needed: Collection[str]) -> dict[str, np.ndarray]:
    """The terms that no product is needed for."""
    values = {}
    if "popularity" in needed:
        values["popularity"] = sources.popularity[rows]
    if sources.ranker is not None:
        if "trend" in needed:
            values["trend"] = sources.ranker.trend[rows]
        if user is not None and sources.ranker.item_to_item is not None and "item_to_item" in needed:
            own = user.history[-RECENT:]
            total = sources.ranker.item_to_item.total(own, np.ones(len(own)), sources.ranker.items)
            values["item_to_item"] = total[rows].astype(np.float32)
    if sources.log_price is not None and user is not None and "price_fit" in needed:
        own = sources.log_price[user.history]
        own = own[~np.isnan(own)]
        if len(own):
            off = sources.log_price[rows] - own.sum() / len(own)
            fit = np.multiply(off, -off, out=off)
            fit[np.isnan(fit)] = 0
            values["price_fit"] = fit
    return values


def factor_term(scores: np.ndarray, scale: float | None) -> np.ndarray:
    """Factor scores, 1 for a sure touch and about 0 for none, on a scale that is logarithmic well above `scale` and
    linear around 0 (the inverse hyperbolic sine); as they are where `scale` is None."""
    if scale is None:
        return scores
    term: np.ndarray = np.arcsinh(scores / np.float32(scale))
    return term


def blend(values: Mapping[str, np.ndarray], weights: Mapping[str, float]) -> tuple[list[str], np.ndarray]:
    """The parts of the score: names, and (n, terms) float32 in the same order. BASE is the same for every item."""
    names = [name for name in values if name in weights]
    parts = np.empty((len(names) + (BASE in weights), len(next(iter(values.values())))), np.float32)
    for part, name in zip(parts, names, strict=False):
        np.multiply(values[name], np.float32(weights[name]), out=part)
    if BASE in weights:
        names = [*names, BASE]
        parts[-1] = weights[BASE]
    parts += 0  # makes a plain zero of what would be shown as -0.0
    return names, parts.T


def best(scores: np.ndarray, k: int) -> np.ndarray:
    """Positions of the k largest scores, largest first, equal ones in their order. scores: (n,) -> (at most k,)."""
    if k >= len(scores):
        return np.argsort(-scores, kind="stable")
    least = np.partition(scores, -k)[-k]
    likely = np.flatnonzero(scores >= least)
    order: np.ndarray = likely[np.argsort(-scores[likely], kind="stable")[:k]]
    return order


def scaled_popularity(counts: np.ndarray) -> np.ndarray:
    """counts: (items,), how often each was touched -> (items,) float32 from 0 to 1."""
    most = np.log1p(counts.max(initial=0))
    scaled: np.ndarray = np.log1p(counts) / most if most > 0 else np.zeros(len(counts))
    return scaled.astype(np.float32)


def log_price(prices: np.ndarray | None) -> np.ndarray | None:
    """(items,) prices, NaN where unknown -> their logarithms, NaN where there is no positive price; None for None."""
    if prices is None:
        return None
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(prices > 0, np.log(prices), np.nan).astype(np.float32)


def own_vector(index: Index, user: User) -> np.ndarray:
    """The mean of the user's own latest pictures, of items and photos: (dim,), zero where there are none.

    A cosine with the mean is the mean of the cosines: one product, however many there are."""
    rows = user.history[-RECENT:]
    own = index.vectors(rows[index.pictured[rows]])
    if user.photos is not None:
        own = np.concatenate([own, user.photos])[-RECENT:]
    if not len(own):
        return np.zeros(index.shape[1], np.float32)
    mean: np.ndarray = np.full(len(own), 1 / len(own), np.float32) @ own
    return mean


def _last_factors(ranker: Ranker, rows: np.ndarray) -> np.ndarray:
    """The fading mean of the unit factors of the last items: (factors,)."""
    fading = FADED[LAST - len(rows) :]
    weights = fading * (ranker.inverse_lengths[rows] / max(float(fading.sum()), 1e-9))
    mean: np.ndarray = weights @ ranker.factors_of(rows)
    return mean


def _unit(vector: np.ndarray) -> np.ndarray:
    unit: np.ndarray = vector / max(float(vector @ vector) ** 0.5, 1e-9)
    return unit
