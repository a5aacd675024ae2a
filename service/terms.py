"""The named terms of the final score, for training and serving alike.

    factor        what people with like tastes touched: user factor times item factor, on a logarithmic scale
    likeness      cosine with the picture of the query
    own_likeness  cosine with the shopper's own pictures, their mean
    recent        cosine of factors with the shopper's last items, each weighing 0.8 of the one after it
    price_fit     how near the price is to what the shopper chose before: minus the squared difference of logarithms
    popularity    log(1 + times touched), 1 for the most popular item
    trend         logarithm of how much more it is touched of late than over the whole log

score = sum over terms of weight x value; the weights are learned for each tier (training/blend.py). A sum of logarithms
is a product: an item that trends twice as much is as good as one that fits twice as well.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from service.index import Index
from service.ranker import FACTOR_SCALE, Ranker, Shopper

RECENT = 100  # of the shopper's items, whose pictures are compared
LAST = 10  # of the shopper's items, for the term `recent`
FADING = 0.8
REASONS = 2  # past items named as reasons for a recommended one
PRICE = "price"


@dataclass(frozen=True, slots=True)
class Sources:
    """What the terms are computed from. index and ranker are None where the catalogue has no pictures or no
    interactions; popularity: (items,), from 0 to 1; log_price: (items,), NaN where unknown, or None;
    factor_scale: that of the blend."""

    index: Index | None
    ranker: Ranker | None
    popularity: np.ndarray
    log_price: np.ndarray | None = None
    factor_scale: float | None = FACTOR_SCALE


@dataclass(frozen=True, slots=True)
class Taste:
    """What the terms need of a shopper, computed once a query. All (dim,) or (factors,), or None where unknown."""

    factor: np.ndarray | None
    own: np.ndarray | None
    last: np.ndarray | None
    log_price: float | None


def taste(sources: Sources, shopper: Shopper) -> Taste:
    """Gather what is known of a shopper."""
    ranker, index = sources.ranker, sources.index
    return Taste(
        factor=None if ranker is None else shopper.factor,
        own=None if index is None else own_vector(index, shopper),
        last=None if ranker is None else _last_factors(ranker, shopper.history[-LAST:]),
        log_price=_usual_price(sources.log_price, shopper),
    )


def term_values(
    sources: Sources, rows: np.ndarray, vector: np.ndarray | None, shopper: Shopper | None
) -> dict[str, np.ndarray]:
    """rows: (n,) -> name: (n,) float32, only the terms that the sources and the query allow."""
    values: dict[str, np.ndarray] = {}
    known = taste(sources, shopper) if shopper is not None else None
    if known is not None and sources.ranker is not None:
        factors = sources.ranker.item_factors[rows]
        values["factor"] = factor_term(factors @ known.factor, sources.factor_scale)
        values["recent"] = (factors @ known.last) * sources.ranker.inverse_lengths[rows]
    if sources.index is not None and (vector is not None or known is not None):
        pictures = np.nan_to_num(sources.index.vectors(rows))
        if vector is not None:
            values["likeness"] = pictures @ vector
        if known is not None and known.own is not None:
            values["own_likeness"] = pictures @ _unit(known.own)
    if known is not None and known.log_price is not None and sources.log_price is not None:
        values["price_fit"] = np.nan_to_num(-np.square(sources.log_price[rows] - known.log_price))
    values["popularity"] = sources.popularity[rows]
    if sources.ranker is not None:
        values["trend"] = sources.ranker.trend[rows]
    return values


def factor_term(scores: np.ndarray, scale: float | None) -> np.ndarray:
    """Factor scores, 1 for a sure touch and about 0 for none, on a scale that is logarithmic well above `scale` and
    linear around 0 (the inverse hyperbolic sine); as they are where `scale` is None."""
    if scale is None:
        return scores
    term: np.ndarray = np.arcsinh(scores / np.float32(scale))
    return term


def blend(values: Mapping[str, np.ndarray], weights: Mapping[str, float]) -> tuple[list[str], np.ndarray]:
    """The parts of the score: names, and (n, terms) float32 in the same order."""
    names = [name for name in values if name in weights]
    if not names:
        return names, np.zeros((len(next(iter(values.values()))), 0), np.float32)
    return names, np.stack([values[name] * np.float32(weights[name]) for name in names], axis=1)


def because(sources: Sources, rows: np.ndarray, shopper: Shopper | None) -> list[list[int]]:
    """For each row the rows of the shopper's past items nearest to it, by picture, else by factors."""
    if shopper is None or not len(shopper.history):
        return [[] for _ in rows]
    past = shopper.history[-RECENT:]
    if sources.index is not None:
        likeness = np.nan_to_num(sources.index.vectors(rows)) @ np.nan_to_num(sources.index.vectors(past)).T
    elif sources.ranker is not None:
        factors, lengths = sources.ranker.item_factors, sources.ranker.inverse_lengths
        likeness = (factors[rows] @ factors[past].T) * lengths[rows, None] * lengths[past]
    else:
        return [[] for _ in rows]
    best = np.argsort(-likeness, axis=1, kind="stable")[:, :REASONS]
    return [[int(past[at]) for at, near in zip(line, row[line], strict=True) if near > 0]
            for line, row in zip(best, likeness, strict=True)]  # fmt: skip


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


def own_vector(index: Index, shopper: Shopper) -> np.ndarray:
    """The mean of the shopper's own latest pictures, of items and photos: (dim,), zero where there are none.

    A cosine with the mean is the mean of the cosines: one product, however many there are."""
    own = index.vectors(shopper.history[-RECENT:])
    own = own[~np.isnan(own[:, 0])]
    if shopper.photos is not None:
        own = np.concatenate([own, shopper.photos])[-RECENT:]
    return own.mean(axis=0) if len(own) else np.zeros(index.shape[1], np.float32)


def _last_factors(ranker: Ranker, rows: np.ndarray) -> np.ndarray:
    """The fading mean of the unit factors of the last items: (factors,)."""
    weights = FADING ** np.arange(len(rows) - 1, -1, -1, dtype=np.float32)
    weights *= ranker.inverse_lengths[rows] / max(weights.sum(), 1e-9)
    mean: np.ndarray = weights @ ranker.item_factors[rows]
    return mean


def _usual_price(prices: np.ndarray | None, shopper: Shopper) -> float | None:
    if prices is None:
        return None
    own = prices[shopper.history]
    own = own[np.isfinite(own)]
    return float(own.mean()) if len(own) else None


def _unit(vector: np.ndarray) -> np.ndarray:
    unit: np.ndarray = vector / max(float(np.linalg.norm(vector)), 1e-9)
    return unit
