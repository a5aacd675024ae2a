"""Learn the weights of the final sum, tier by tier, on a period that the factors have not seen."""

from dataclasses import dataclass

import numba
import numpy as np
import pandas as pd
import torch

from service.ranker import DISMISS, Blend, Ranker, Shopper
from service.terms import Sources, log_price, scaled_popularity, term_values
from training import ranker
from training.ranker import DAY, RankerParameters
from training.sides import Known

SHOPPERS = 800
CANDIDATES = 4000
PENALTY = 1e-3
TOP = 20
ROUNDS = 6
FACTORS = (0.0, 0.25, 0.5, 0.8, 0.95, 1.05, 1.25, 2.0, 4.0)
STARTS = 8  # of the ascent; one alone ends on whichever hill is near
JITTER = 0.7  # standard deviation of the logarithm of a weight, from one start to another

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
class Lesson:
    """What one shopper touched on their last day that was new to them, and what the log said of the items then.

    row: of the ranker, which has not seen that day; wanted: item rows; popularity: scaled; trend: (items,)."""

    row: int
    wanted: np.ndarray
    popularity: np.ndarray
    trend: np.ndarray


@dataclass(frozen=True, slots=True)
class Lessons:
    """What the blend learns from."""

    sources: Sources
    each: list[Lesson]


def learn(interactions: pd.DataFrame, *, items: int, parameters: RankerParameters, known: Known, seed: int) -> Blend:
    """interactions: the training period, in the order of time. See `look_ahead` for what is held out of it."""
    lessons = look_ahead(interactions, items=items, parameters=parameters, known=known, seed=seed)
    if lessons is None:
        return Blend(UNLEARNED)
    rng = np.random.default_rng(seed)
    tiers = dict(UNLEARNED)
    tiers["taste"], _ = fit([_taste(lessons, lesson, rng) for lesson in lessons.each])
    tiers["popular"], _ = fit([_taste(lessons, lesson, rng, known=False) for lesson in lessons.each])
    if known.index is not None and known.views is not None:
        photos = dict(zip(known.views[0].tolist(), known.views[1], strict=True))
        pairs = [(lesson, int(item)) for lesson in lessons.each for item in lesson.wanted if item in photos]
        pairs = [pairs[p] for p in rng.permutation(len(pairs))[:SHOPPERS]]
        if pairs:
            tiers["ranked"], _ = fit([_photo(lessons, *pair, photos[pair[1]], rng, known=True) for pair in pairs])
            tiers["visual"], _ = fit([_photo(lessons, *pair, photos[pair[1]], rng, known=False) for pair in pairs])
    return Blend(tiers)


def rehearse(lessons: Lessons, *, seed: int) -> float:
    """nDCG@TOP that shoppers without a photo would have seen in the lessons' period, with the best weights."""
    rng = np.random.default_rng(seed)
    return fit([_taste(lessons, lesson, rng) for lesson in lessons.each])[1]


def rehearse_factors(lessons: Lessons, *, seed: int) -> float:
    """The same by the factor scores alone, which takes no learning."""
    rng = np.random.default_rng(seed)
    choices = [_taste(lessons, lesson, rng) for lesson in lessons.each]
    values, chosen, real = _table(choices, ["factor"])
    return _ndcg(values[:, :, 0], chosen, real)


def fit(choices: list[Choice]) -> tuple[dict[str, float], float]:
    """Weights that put the chosen items first, and the nDCG@TOP that they reach.

    They are those of a multinomial logit (McFadden, 1974), then coordinate ascent on nDCG itself from there and from
    places around it, since the likelihood also cares for the order far below the top."""
    names = sorted({name for choice in choices for name in choice.values})
    values, chosen, real = _table(choices, names)
    spread = values[real].std(axis=0)
    spread = np.where(spread > 0, spread, 1.0).astype(np.float32)
    values /= spread
    weights, reached = _climb(values, chosen, real, _logit(values, chosen, real))
    return {name: round(float(w / s), 6) for name, w, s in zip(names, weights, spread, strict=True)}, reached


def _table(choices: list[Choice], names: list[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """values: (choices, candidates, terms) float32, 0 where a choice lacks a term; chosen, and which candidates are
    real and not padding: (choices, candidates) bool."""
    width = max(len(choice.chosen) for choice in choices)
    values = np.zeros((len(choices), width, len(names)), np.float32)
    chosen = np.zeros((len(choices), width), bool)
    real = np.zeros((len(choices), width), bool)
    for line, choice in enumerate(choices):
        n = len(choice.chosen)
        for term, name in enumerate(names):
            values[line, :n, term] = choice.values.get(name, 0.0)
        chosen[line, :n], real[line, :n] = choice.chosen, True
    return values, chosen, real


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


def _climb(values: np.ndarray, chosen: np.ndarray, real: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, float]:
    """Scale one weight at a time while nDCG grows, from several starts around these weights -> the best found, and its
    nDCG. The scale of all together does not matter to an order."""
    rng = np.random.default_rng(0)
    best, score = weights, _ndcg(values @ weights, chosen, real)
    for start in range(STARTS):
        around = best * np.exp(JITTER * rng.normal(size=len(best))) if start else best
        found, reached = _ascend(values, chosen, real, around.astype(np.float32))
        if reached > score:
            best, score = found, reached
    return best, score


def _ascend(values: np.ndarray, chosen: np.ndarray, real: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, float]:
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
    return best, score


def _ndcg(scores: np.ndarray, chosen: np.ndarray, real: np.ndarray) -> float:
    """Mean nDCG@TOP. Ties are counted against us: what was chosen comes last among equals."""
    return float(_ndcg_of_each(np.where(real, scores, np.float32(-np.inf)).astype(np.float32), chosen).mean())


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


def look_ahead(
    interactions: pd.DataFrame, *, items: int, parameters: RankerParameters, known: Known, seed: int,
    shoppers: int = SHOPPERS,
) -> Lessons | None:  # fmt: skip
    """Train without the last day of some shoppers, to see what they touched on it. None where there is nothing to see.

    They are drawn from the half that was active last, so that the weights are those of the present. Of who has been
    there on a single day alone, the last tenth of the items is held out."""
    held = _last_days(interactions)
    pairs = interactions.loc[held, ["user_id", "item", "timestamp"]]
    latest = pairs.groupby("user_id", sort=True)["timestamp"].min().sort_values(kind="stable")
    latest = latest.iloc[len(latest) // 2 :]
    if latest.empty:
        return None
    chosen = latest.iloc[np.sort(np.random.default_rng(seed).permutation(len(latest))[:shoppers])]
    held &= interactions["user_id"].isin(chosen.index).to_numpy()
    before = interactions[~held].reset_index(drop=True)
    made = ranker.train(before, items=items, parameters=parameters, user_key="", sides=known.sides, quiet=True)
    row_of = {user: row for row, user in enumerate(made.users)}
    wanted = interactions[held].groupby("user_id")["item"].unique()
    lessons = []
    found = ranker.moments(interactions, items=items, times=chosen.to_numpy())
    for user, moment in zip(chosen.index, found, strict=True):
        shopper = made.ranker.shopper(row_of[user])
        new = np.setdiff1d(wanted[user], shopper.seen)
        if len(new) and len(shopper.history):
            lessons.append(Lesson(row_of[user], new, scaled_popularity(moment.popularity), moment.trend))
    sources = Sources(known.index, made.ranker, np.zeros(items, np.float32), log_price(known.prices))
    return Lessons(sources, lessons) if lessons else None


def _last_days(interactions: pd.DataFrame) -> np.ndarray:
    """(interactions,) bool: the last day of each shopper, or the last tenth of what they did, where that is all."""
    user = pd.factorize(interactions["user_id"])[0]
    times = interactions["timestamp"].to_numpy()
    last = np.zeros(user.max(initial=-1) + 1, np.int64)
    np.maximum.at(last, user, times)
    late = times > last[user] - DAY
    earlier = np.bincount(user[~late], minlength=len(last)) > 0
    counts = np.bincount(user, minlength=len(last))
    # how many of the same shopper come after each
    after = interactions.groupby(user, sort=False).cumcount(ascending=False).to_numpy()
    tail = after < np.ceil(counts[user] / 10)
    held: np.ndarray = np.where(earlier[user], late, tail & (counts[user] > 1))
    return held & (interactions["event"] != DISMISS).to_numpy()


def _taste(lessons: Lessons, lesson: Lesson, rng: np.random.Generator, *, known: bool = True) -> Choice:
    return _choice(lessons, lesson, lesson.wanted, None, rng, known=known)


def _photo(
    lessons: Lessons, lesson: Lesson, item: int, photo: np.ndarray, rng: np.random.Generator, *, known: bool
) -> Choice:
    """A photograph of an item that the shopper touched next is sent; it should come first."""
    return _choice(lessons, lesson, np.array([item]), photo, rng, known=known)


def _choice(
    lessons: Lessons, lesson: Lesson, wanted: np.ndarray, photo: np.ndarray | None, rng: np.random.Generator, *,
    known: bool,
) -> Choice:  # fmt: skip
    shopper = _ranker(lessons).shopper(lesson.row)
    rows, chosen = _candidates(lessons, shopper, wanted, rng)
    [values] = term_values(lessons.sources, [rows], [photo], [shopper if known else None])
    return Choice(values | {"popularity": lesson.popularity[rows], "trend": lesson.trend[rows]}, chosen)


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
