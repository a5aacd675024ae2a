"""Learn the weights of the final sum, tier by tier, on a period that the factors have not seen."""

from collections.abc import Mapping
from dataclasses import dataclass

import numba
import numpy as np
import pandas as pd
import torch

from service.recommender.scoring.weights import Blend
from training.data.side_information import Known
from training.ranker import likeness_trade
from training.ranker.fitting import RankerParameters
from training.ranker.lessons import Choice, Lessons, look_ahead

PENALTY = 1e-3
TOP = 20
ROUNDS = 6
FACTORS = (0.0, 0.25, 0.5, 0.8, 0.95, 1.05, 1.25, 2.0, 4.0)
STARTS = 8  # of the ascent; one alone ends on whichever hill is near
JITTER = 0.7  # standard deviation of the logarithm of a weight, from one start to another
CHANCE = 2.0  # standard errors that a term must improve the lessons by to be kept
SHARES = (0.5, 0.2, 0.1, 0.05, 0.02)  # of the largest weight, for the factors where learning leaves them none
OF_TIME = ("popularity", "trend")  # terms that the clock may have made

# What serves a tier where there is nothing to learn from.
UNLEARNED = {
    "ranked": {"factor": 0.1, "likeness": 1.0, "own_likeness": 0.1, "popularity": 0.05},
    "visual": {"likeness": 1.0, "popularity": 0.01},
    "taste": {"factor": 1.0, "own_likeness": 1.0, "popularity": 0.5},
    "popular": {"popularity": 1.0},
}


@dataclass(frozen=True, slots=True)
class Learned:
    """The blend, and what was seen while a photo and a user were brought together, for the manifest."""

    blend: Blend
    trade: dict[str, object] | None = None


def learn(interactions: pd.DataFrame, *, items: int, parameters: RankerParameters, known: Known, seed: int) -> Learned:
    """interactions: the training period, in the order of time. See `look_ahead` for what is held out of it."""
    lessons = look_ahead(interactions, items=items, parameters=parameters, known=known, seed=seed)
    tiers: dict[str, Mapping[str, float]] = dict(UNLEARNED)
    if lessons is not None:
        later = lessons.choices(seed=seed, at_end=True)
        tiers["taste"], _ = fit(lessons.choices(seed=seed), later)
        tiers["popular"], _ = fit(lessons.choices(seed=seed, known=False))
    if known.index is None or known.views is None:
        return Learned(Blend(tiers))
    tiers["visual"] = likeness_trade.looks(known, seed=seed)
    if lessons is None:
        return Learned(Blend(tiers))
    trade, told = likeness_trade.trade(lessons, known, tiers["visual"], tiers["taste"], seed=seed)
    tiers["ranked"] = trade.weights(trade.default)
    return Learned(Blend(tiers, trade=trade), told)


def rehearse(lessons: Lessons, *, seed: int) -> float:
    """nDCG@TOP that users without a photo would have seen in the lessons, with the best weights."""
    return fit(lessons.choices(seed=seed), lessons.choices(seed=seed, at_end=True))[1]


def rehearse_factors(lessons: Lessons, *, seed: int) -> float:
    """The same by the factor scores alone, which takes no learning."""
    return _table(lessons.choices(seed=seed), ["factor"]).ndcg(np.ones(1))


def fit(choices: list[Choice], later: list[Choice] | None = None) -> tuple[dict[str, float], float]:
    """Weights that put the chosen items first, and the nDCG@TOP that they reach.

    They are those of a multinomial logit (McFadden, 1974), then coordinate ascent on nDCG itself from there and from
    places around it, since the likelihood also cares for the order far below the top. A term that improves nothing
    beyond chance gets 0, and the sum is never worse than the factors alone.

    later: the same lessons with what the log says when it ends, as a release has it: a term that the clock made stays
    only where it helps then as well. People who come once are not asked at the end of the log."""
    names = sorted({name for choice in choices for name in choice.values})
    table, spread = _on_one_scale(_table(choices, names))
    weights, _ = _climb(table, _logit(table))
    if later is not None:
        end = _table(later, names)
        end = _Table(end.values / spread, end.chosen, end.real)
        for name in OF_TIME:
            if name in names and _harms(end, weights, names.index(name)):
                weights = _without(weights, names.index(name))
        weights, _ = _ascend(table, weights)
    weights = _pruned(table, weights)
    if "factor" in names:
        weights = _with_factor(table, weights, names.index("factor"))
        alone = np.where(np.array(names) == "factor", 1, 0).astype(np.float32)
        if table.ndcg(alone) >= table.ndcg(weights):
            weights = alone
    return {name: _brief(w / s) for name, w, s in zip(names, weights, spread, strict=True)}, table.ndcg(weights)


@dataclass(frozen=True, slots=True)
class _Table:
    """values: (choices, candidates, terms) float32, 0 where a choice lacks a term; chosen, and which candidates are
    real and not padding: (choices, candidates) bool."""

    values: np.ndarray
    chosen: np.ndarray
    real: np.ndarray

    def each(self, weights: np.ndarray) -> np.ndarray:
        """(choices,): the nDCG@TOP of every lesson."""
        return _ndcg(self.values @ weights.astype(np.float32), self.chosen, self.real)

    def ndcg(self, weights: np.ndarray) -> float:
        """Of all lessons, the mean. weights: (terms,)."""
        return float(self.each(weights).mean())


def _pruned(table: _Table, weights: np.ndarray) -> np.ndarray:
    """Without the terms that add nothing beyond chance, the least first, and the rest climbed anew."""
    while np.count_nonzero(weights) > 1:
        there = table.each(weights)
        gains = {}
        for term in np.flatnonzero(weights):
            gain = there - table.each(_without(weights, int(term)))
            gains[int(term)] = float(gain.mean()) / max(float(gain.std()) / len(gain) ** 0.5, 1e-9)
        least = min(gains, key=lambda term: gains[term])
        if gains[least] >= CHANCE:
            break
        weights, _ = _ascend(table, _without(weights, least))
    return weights


def _with_factor(table: _Table, weights: np.ndarray, factor: int) -> np.ndarray:
    """With a weight of the factor scores above 0. No lesson asks for what nobody has touched yet, and they alone tell
    anything of that: where the others left them nothing, or turned them round, they get the largest share that costs
    the lessons nothing beyond chance."""
    if weights[factor] > 0:
        return weights
    weights, _ = _ascend(table, _without(weights, factor))
    there, tried = table.each(weights), weights.copy()
    for share in SHARES:
        tried[factor] = share * max(float(np.abs(weights).max()), 1e-3)
        lost = there - table.each(tried)
        if float(lost.mean()) < CHANCE * float(lost.std()) / len(lost) ** 0.5:
            break
    return tried


def _harms(table: _Table, weights: np.ndarray, term: int) -> bool:
    return table.ndcg(_without(weights, term)) >= table.ndcg(weights)


def _without(weights: np.ndarray, term: int) -> np.ndarray:
    left = weights.copy()
    left[term] = 0
    return left


def _brief(number: float) -> float:
    return round(float(number), 6) + 0.0


def _on_one_scale(table: _Table) -> tuple[_Table, np.ndarray]:
    """Each term divided by its spread, and the spreads: (terms,) float32."""
    spread = table.values[table.real].std(axis=0)
    spread = np.where(spread > 0, spread, 1.0).astype(np.float32)
    return _Table(table.values / spread, table.chosen, table.real), spread


def _table(choices: list[Choice], names: list[str]) -> _Table:
    """The lessons side by side."""
    width = max(len(choice.chosen) for choice in choices)
    values = np.zeros((len(choices), width, len(names)), np.float32)
    chosen = np.zeros((len(choices), width), bool)
    real = np.zeros((len(choices), width), bool)
    for line, choice in enumerate(choices):
        n = len(choice.chosen)
        for term, name in enumerate(names):
            values[line, :n, term] = choice.values.get(name, 0.0)
        chosen[line, :n], real[line, :n] = choice.chosen, True
    return _Table(values, chosen, real)


def _logit(lessons: _Table) -> np.ndarray:
    """-> (terms,)."""
    table, hit = torch.from_numpy(lessons.values), torch.from_numpy(lessons.chosen)
    outside = torch.from_numpy(~lessons.real)
    weights = torch.zeros(lessons.values.shape[2], requires_grad=True)
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


def _climb(table: _Table, weights: np.ndarray) -> tuple[np.ndarray, float]:
    """Scale one weight at a time while nDCG grows, from several starts around these weights -> the best found, and its
    nDCG. The scale of all together does not matter to an order."""
    rng = np.random.default_rng(0)
    best, score = weights, table.ndcg(weights)
    for start in range(STARTS):
        around = best * np.exp(JITTER * rng.normal(size=len(best))) if start else best
        found, reached = _ascend(table, around.astype(np.float32))
        if reached > score:
            best, score = found, reached
    return best, score


def _ascend(table: _Table, weights: np.ndarray) -> tuple[np.ndarray, float]:
    best, score = weights, table.ndcg(weights)
    for _ in range(ROUNDS):
        before = score
        for term in np.flatnonzero(weights):
            for factor in FACTORS:
                tried = best.copy()
                tried[term] *= factor
                reached = table.ndcg(tried)
                if reached > score + 1e-6:
                    best, score = tried, reached
        if score <= before:
            break
    return best, score


def _ndcg(scores: np.ndarray, chosen: np.ndarray, real: np.ndarray) -> np.ndarray:
    """nDCG@TOP of each. Ties are counted against us: what was chosen comes last among equals."""
    found: np.ndarray = _ndcg_of_each(np.where(real, scores, np.float32(-np.inf)).astype(np.float32), chosen)
    return found


@numba.njit(parallel=True, cache=True)
def _ndcg_of_each(scores: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """scores, chosen: (n, candidates) -> (n,). An item's place is the number of those before it."""
    found = np.zeros(len(scores))
    for line in numba.prange(len(scores)):
        own, hits = scores[line], np.flatnonzero(chosen[line])
        gain, ideal = 0.0, 0.0
        for at, hit in enumerate(hits):
            if at < TOP:
                ideal += 1 / np.log2(at + 2.0)
            place = 0
            for other in range(len(own)):
                ahead = own[other] > own[hit]
                # among equals what was chosen comes last, and the chosen in their order
                equal = own[other] == own[hit] and (not chosen[line, other] or other < hit)
                place += 1 if ahead or equal else 0
                if place >= TOP:
                    break
            if place < TOP:
                gain += 1 / np.log2(place + 2.0)
        found[line] = gain / ideal if ideal > 0 else 0.0
    return found
