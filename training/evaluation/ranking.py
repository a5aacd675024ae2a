"""Does a release find what users touch next? Asked as it serves, on what was held out, beside baselines."""

from collections.abc import Callable
from typing import Any

import numpy as np

from service.recommender.pipeline import Recommender
from service.recommender.query import MAX_K, Query
from service.recommender.recommendation import Recommendation
from training import measures
from training.data import split
from training.data.split import HeldOut
from training.evaluation import baselines
from training.evaluation.baselines import Scorer
from training.evaluation.beyond_accuracy import beyond_accuracy, by_group
from training.evaluation.evaluated_release import EvaluatedRelease
from training.evaluation.report import Example
from training.progress import track
from training.ranker.fitting import RankerParameters, Trained, train

USERS = 3000
DEPTH = 20
SHOWN = 6  # good cases, and as many bad ones


def measure_ranking(asked: EvaluatedRelease) -> tuple[dict[str, Any], list[Example]]:
    """Warm items and users, cold ones apart, groups of users, and every baseline."""
    items = len(asked.catalogue.items)
    held = split.warm(asked.cut, items=items)
    metrics: dict[str, Any] = {
        "protocol": asked.cut.protocol,
        "test_users": len(held.users),
        "candidate_items": int(held.candidates.sum()),
        "min_items_per_user": split.MIN_ITEMS_PER_USER,
        "min_users_per_item": split.MIN_USERS_PER_ITEM,
    }
    examples: list[Example] = []
    without = _without_features(asked)
    if held.users:
        found, examples = _warm(asked, held.sample(USERS), without)
        metrics |= found
    for name, cold in (("cold_items", split.cold_items(asked.cut, items=items)), ("cold_users", _cold_users(asked))):
        if cold.users:
            metrics[name] = _cold(asked, cold.sample(USERS), name, without)
    return metrics, examples


def _warm(asked: EvaluatedRelease, held: HeldOut, without: Trained) -> tuple[dict[str, Any], list[Example]]:
    recommender = asked.recommender
    answers = [
        recommender.recommend([Query(user_id=user, k=MAX_K)])[0] for user in track(held.users, "asking for users")
    ]
    ranked = np.stack([answer_rows(answer, recommender.release.items.find, held.candidates) for answer in answers])
    each = list_measures(ranked, held) | {"auc": _areas(asked, held)}
    metrics: dict[str, Any] = measures.with_intervals(each) | beyond_accuracy(asked, ranked, held)
    metrics["recall_curve"] = _curve(ranked, held)
    if asked.negatives is not None:
        metrics[f"sampled_{asked.negatives}"] = measures.with_intervals(_sampled(asked, held, asked.negatives))
    metrics["by_group"] = by_group(asked.catalogue, held, each["ndcg_at_10"])
    metrics["baselines"] = {name: _judged(scorer, held) for name, scorer in _rivals(asked, held, without).items()}
    metrics |= _share_of_best(asked, held, metrics["ndcg_at_10"])
    return metrics, _examples(recommender, held, answers, each["ndcg_at_10"])


def _cold(asked: EvaluatedRelease, held: HeldOut, name: str, without: Trained) -> dict[str, Any]:
    """The same measures over all candidates by their scores: cold items compete among themselves."""
    ours = release_scorer(asked.recommender, held, _every_row(asked))
    ranked, areas = baselines.judge(ours, held, k=DEPTH)
    metrics: dict[str, Any] = {"test_users": len(held.users), "candidate_items": int(held.candidates.sum())}
    metrics |= measures.with_intervals(list_measures(ranked, held) | {"auc": areas})
    rivals = {"factors_without_features": baselines.factors(without, held)}
    index = asked.recommender.release.index
    if name == "cold_items" and index is not None:
        rivals["picture_only"] = baselines.likeness(index.vectors(np.arange(index.shape[0])), held)
    if name == "cold_users":
        rivals["popularity"] = baselines.popularity(asked.cut, items=len(asked.catalogue.items))
    metrics["baselines"] = {rival: _judged(scorer, held) for rival, scorer in rivals.items()}
    return metrics | _share_of_best(asked, held, metrics["ndcg_at_10"])


def _cold_users(asked: EvaluatedRelease) -> HeldOut:
    """Only users of whom a profile is known: of others nothing but popularity can be asked."""
    held = split.cold_users(asked.cut, items=len(asked.catalogue.items))
    users = asked.catalogue.users
    known = set() if users is None else set(users["user_id"])
    return held.keep([at for at, user in enumerate(held.users) if user in known])


def _rivals(asked: EvaluatedRelease, held: HeldOut, without: Trained) -> dict[str, Scorer]:
    items, release = len(asked.catalogue.items), asked.recommender.release
    rivals: dict[str, Scorer] = {
        "popularity": baselines.popularity(asked.cut, items=items),
        "transitions": baselines.transitions(asked.cut, held, items=items),
        "item_knn": baselines.item_knn(asked.cut, held, items=items),
        "user_knn": baselines.user_knn(asked.cut, held, items=items),
        "factors_without_features": baselines.factors(without, held),
        "factors_alone": release_scorer(asked.recommender, held, _every_row(asked), factors_alone=True),
    }
    if release.index is not None:
        rivals["picture_only"] = baselines.likeness(release.index.vectors(np.arange(items)), held)
        rivals["colour_histogram"] = baselines.likeness(baselines.colour_histograms(release), held)
    return rivals


def _without_features(asked: EvaluatedRelease) -> Trained:
    """The factorization of the same interactions with the same parameters, told nothing of what items are."""
    stored = dict(asked.recommender.release.manifest.training["ranker"])
    known = {name: stored[name] for name in RankerParameters.__dataclass_fields__ if name in stored}
    return train(
        asked.cut.train, items=len(asked.catalogue.items), parameters=RankerParameters(**known), user_key="", quiet=True
    )


def release_scorer(recommender: Recommender, held: HeldOut, rows: np.ndarray, *, factors_alone: bool = False) -> Scorer:
    """The final scores of a release without a photo. rows: (items,) its row of each item of the catalogue, -1 for one
    that it does not know."""
    known = np.flatnonzero(held.candidates & (rows >= 0))

    def scores(block: np.ndarray) -> np.ndarray:
        found = np.full((len(block), len(held.candidates)), -np.inf, np.float32)
        for line, at in zip(found, block, strict=True):
            factor, final = recommender.score(held.users[at], rows[known])
            line[known] = np.nan_to_num(factor) if factors_alone else final
        return found

    return scores


def _every_row(asked: EvaluatedRelease) -> np.ndarray:
    return np.arange(len(asked.catalogue.items))


def _judged(scorer: Scorer, held: HeldOut) -> dict[str, Any]:
    ranked, areas = baselines.judge(scorer, held, k=DEPTH)
    known = areas[np.isfinite(areas)]
    figures: dict[str, Any] = {name: float(values.mean()) for name, values in list_measures(ranked, held).items()}
    return figures | {"auc": float(known.mean()) if len(known) else 0.0, "recall_curve": _curve(ranked, held)}


def _hits(ranked: np.ndarray, held: HeldOut) -> tuple[np.ndarray, np.ndarray]:
    """(users, DEPTH) bool, and how many items each user touched."""
    if ranked.shape[1] < DEPTH:
        ranked = np.pad(ranked, ((0, 0), (0, DEPTH - ranked.shape[1])), constant_values=-1)
    return measures.hits_of(ranked, held.relevant), np.array([len(wanted) for wanted in held.relevant])


def _curve(ranked: np.ndarray, held: HeldOut) -> list[float]:
    return measures.recall_curve(*_hits(ranked, held))


def list_measures(ranked: np.ndarray, held: HeldOut) -> dict[str, np.ndarray]:
    """Every list measure for every user. ranked: (users, DEPTH) rows -> (users,) each."""
    hits, sizes = _hits(ranked, held)
    return measures.list_measures(hits, sizes, 10) | measures.list_measures(hits, sizes, 20)


def _areas(asked: EvaluatedRelease, held: HeldOut) -> np.ndarray:
    return baselines.judge(release_scorer(asked.recommender, held, _every_row(asked)), held, k=DEPTH)[1]


def _sampled(asked: EvaluatedRelease, held: HeldOut, negatives: int) -> dict[str, np.ndarray]:
    """Each relevant item ranked among `negatives` others that the user never touched (He et al., 2017). What
    Krichene and Rendle, 2020, say of such measures holds: they are for comparison with older papers alone."""
    rng = np.random.default_rng(asked.seed)
    candidates = np.flatnonzero(held.candidates)
    hits = []
    for user, seen, relevant in zip(held.users, held.seen, held.relevant, strict=True):
        others = np.setdiff1d(candidates, np.union1d(seen, relevant))
        for item in relevant:
            rows = np.append(item, rng.choice(others, min(negatives, len(others)), replace=False))
            _, scores = asked.recommender.score(user, rows)
            place = int((scores[1:] >= scores[0]).sum())  # ties count against us
            line = np.zeros(DEPTH, bool)
            line[place : place + 1] = True
            hits.append(line)
    return measures.list_measures(np.array(hits), np.ones(len(hits), int), 10)


def _share_of_best(asked: EvaluatedRelease, held: HeldOut, ours: float) -> dict[str, Any]:
    """The ranking by the tastes that made the log; only drawn catalogues know them."""
    path, users = asked.catalogue.path / "truth.npy", asked.catalogue.users
    if not path.exists() or users is None:
        return {}
    utility = np.load(path, mmap_mode="r", allow_pickle=False)
    row_of = {user: row for row, user in enumerate(users["user_id"])}
    if utility.shape != (len(row_of), len(asked.catalogue.items)):
        return {}
    rows = np.array([row_of[user] for user in held.users])
    best = _judged(baselines.truth(utility, rows), held)
    return {"best_possible": best, "share_of_best_possible_ndcg_at_10": ours / max(best["ndcg_at_10"], 1e-12)}


def answer_rows(answer: Recommendation, find: Callable[[str], int | None], candidates: np.ndarray) -> np.ndarray:
    """The candidates of an answer, best first: (DEPTH,) rows of the catalogue, -1 where there are fewer.

    find: item id -> its row there, None for none."""
    found = [find(item.item_id) for item in answer.items]
    rows = np.array([row for row in found if row is not None], dtype=np.int64)
    rows = rows[candidates[rows]][:DEPTH]
    return np.pad(rows, (0, DEPTH - len(rows)), constant_values=-1)


def _examples(
    recommender: Recommender, held: HeldOut, answers: list[Recommendation], ndcg: np.ndarray
) -> list[Example]:
    """The cases that went best, and as many that went wrong, spread over those without a hit."""
    order = np.argsort(-ndcg, kind="stable")
    missed = order[ndcg[order] == 0]
    chosen = [*order[:SHOWN], *missed[:: max(1, len(missed) // SHOWN)][:SHOWN]]
    return [_example(recommender, held, at, answers[at], float(ndcg[at])) for at in dict.fromkeys(chosen)]


def _example(recommender: Recommender, held: HeldOut, at: int, answer: Recommendation, ndcg: float) -> Example:
    rows = [recommender.release.items.row(item.item_id) for item in answer.items[:10]]
    notes = [", ".join(f"{name} {part:.2f}" for name, part in item.terms.items()) for item in answer.items[:10]]
    wanted = held.relevant[at]
    return Example(
        f"nDCG@10 {ndcg:.2f}",
        [int(row) for row in held.seen[at][-4:]],
        rows,
        right=[bool(row in wanted) for row in rows],
        notes=notes,
        truth=[int(row) for row in wanted[:4]],
    )
