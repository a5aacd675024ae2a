"""The named terms of the final score, for training and serving alike.

    factor        what people with like tastes touched: user factor times item factor
    likeness      cosine with the picture of the query
    own_likeness  cosine with the shopper's own latest pictures, their mean
    popularity    log(1 + times touched), 1 for the most popular item

score = sum over terms of weight x value; the weights are learned for each tier (training/blend.py).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from service.index import Index
from service.ranker import Ranker, Shopper

RECENT = 100  # of the shopper's items, whose pictures are compared
REASONS = 2  # past items named as reasons for a recommended one


@dataclass(frozen=True, slots=True)
class Sources:
    """What the terms are computed from. index and ranker are None where the catalogue has no pictures or no
    interactions; popularity: (items,), how many shoppers touched each."""

    index: Index | None
    ranker: Ranker | None
    popularity: np.ndarray


def term_values(
    sources: Sources, rows: np.ndarray, vector: np.ndarray | None, shopper: Shopper | None
) -> dict[str, np.ndarray]:
    """rows: (n,) -> name: (n,) float32, only the terms that the sources and the query allow."""
    values: dict[str, np.ndarray] = {}
    if shopper is not None and sources.ranker is not None:
        values["factor"] = sources.ranker.scores(shopper, rows)
    if vector is not None and sources.index is not None:
        values["likeness"] = np.nan_to_num(sources.index.cosines(vector, rows))
    if shopper is not None and sources.index is not None:
        own = own_vector(sources.index, shopper)
        values["own_likeness"] = np.nan_to_num(sources.index.cosines(own, rows))
    values["popularity"] = popularity(sources.popularity, rows)
    return values


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
    past = _recent(shopper)
    if sources.index is not None:
        likeness = np.nan_to_num(sources.index.vectors(rows)) @ np.nan_to_num(sources.index.vectors(past)).T
    elif sources.ranker is not None:
        factors = sources.ranker.item_factors
        likeness = _unit(factors[rows]) @ _unit(factors[past]).T
    else:
        return [[] for _ in rows]
    best = np.argsort(-likeness, axis=1, kind="stable")[:, :REASONS]
    return [[int(past[at]) for at, near in zip(line, row[line], strict=True) if near > 0]
            for line, row in zip(best, likeness, strict=True)]  # fmt: skip


def popularity(counts: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """counts: (items,), how often each was touched -> (n,) from 0 to 1."""
    most = np.log1p(counts.max(initial=0.0))
    scaled: np.ndarray = np.log1p(counts[rows]) / most if most > 0 else np.zeros(len(rows), np.float32)
    return scaled.astype(np.float32)


def own_vector(index: Index, shopper: Shopper) -> np.ndarray:
    """The mean of the shopper's own latest pictures: (dim,), zero where there are none.

    A cosine with the mean is the mean of the cosines: one product, however many there are."""
    own = index.vectors(_recent(shopper))
    own = own[~np.isnan(own[:, 0])]
    return own.mean(axis=0) if len(own) else np.zeros(index.shape[1], np.float32)


def _recent(shopper: Shopper) -> np.ndarray:
    return shopper.history[-RECENT:]


def _unit(factors: np.ndarray) -> np.ndarray:
    unit: np.ndarray = factors / np.maximum(np.linalg.norm(factors, axis=1, keepdims=True), 1e-9)
    return unit
