"""Measure a packaged release as it will serve: through service.pipeline, against simple baselines."""

import json
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from service.pipeline import Recommendation, Recommender
from service.queries import MAX_K, Query
from training import baselines, split
from training.catalogue import Catalogue
from training.measures import interval, ndcg_at, recall_at, top
from training.progress import track

K = 10
QUERIES = 1000
SHOPPERS = 3000
HELD_OUT_SPLITS = ("validation", "val", "test")
SHOWN = 12


@dataclass(frozen=True, slots=True)
class Example:
    """One query of the report. Rows of items; right: which answers are of the query's category, if that is known."""

    title: str
    query: list[int]
    answers: list[int]
    right: list[bool] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """metrics: nested plain numbers; lookalikes, recommendations: examples for the report."""

    metrics: dict[str, Any]
    lookalikes: list[Example]
    recommendations: list[Example]


def evaluate(
    recommender: Recommender, catalogue: Catalogue, *, split_column: str | None = None, exclude_same: str | None = None
) -> Evaluation:
    """exclude_same: a column; neighbours that share the query's value in it do not count, in a second figure."""
    metrics: dict[str, Any] = {}
    lookalikes: list[Example] = []
    recommendations: list[Example] = []
    if recommender.release.index is not None and catalogue.items["category"].notna().any():
        metrics["retrieval"], lookalikes = _retrieval(recommender, catalogue, split_column, exclude_same)
    if recommender.release.manifest.index is not None:
        metrics["index"] = {"recall_at_10": recommender.release.manifest.index["recall_at_10"]}
    if recommender.release.ranker is not None and catalogue.interactions is not None:
        metrics["ranking"], recommendations = _ranking(recommender, catalogue)
    return Evaluation(metrics, lookalikes, recommendations)


def stage_times(recommender: Recommender, catalogue: Catalogue, *, queries: int = 50) -> dict[str, float]:
    """Median milliseconds of each stage of the pipeline, over single queries on this machine."""
    seconds: dict[str, list[float]] = defaultdict(list)
    watched = Recommender(
        recommender.release, encoder=recommender.encoder, user_key=recommender.user_key,
        observe=lambda stage, took: seconds[stage].append(took),
    )  # fmt: skip
    rows = catalogue.pictured()[:queries]
    asked = [Query(image=catalogue.picture(row)) for row in rows]
    if catalogue.interactions is not None:
        users = catalogue.interactions["user_id"].drop_duplicates()[:queries]
        asked = asked or [Query() for _ in users]
        asked = [
            Query(image=query.image, user_id=user) for query, user in zip(asked, users, strict=False)
        ]  # fmt: skip
    for query in asked:
        started = time.perf_counter()
        watched.recommend([query])
        seconds["whole"].append(time.perf_counter() - started)
    return {f"{stage}_ms": round(1000 * float(np.median(took)), 3) for stage, took in seconds.items()}


def _retrieval(
    recommender: Recommender, catalogue: Catalogue, split_column: str | None, exclude_same: str | None
) -> tuple[dict[str, Any], list[Example]]:
    """precision@10: how many of the ten nearest are of the query's category."""
    index = recommender.release.index
    assert index is not None
    category = np.array(catalogue.primary_category(), dtype=object)
    queries, gallery = _queries_and_gallery(catalogue, category, split_column)
    vectors = _embed(recommender, catalogue, queries)
    found = np.stack([
        index.search(vector[None], k=K, allowed=_without(gallery, row))[0][0]
        for row, vector in zip(queries, vectors, strict=True)
    ])  # fmt: skip
    right = _share_category(found, queries, category)
    precision = right.mean(axis=1)
    by_category = {
        str(name): float(precision[category[queries] == name].mean())
        for name in np.unique(category[queries].astype(str))
    }
    metrics: dict[str, Any] = {
        "queries": len(queries),
        "gallery": int(gallery.sum()),
        "precision_at_10": float(precision.mean()),
        "precision_at_10_interval": interval(precision),
        "precision_at_10_by_category": by_category,
        "precision_at_10_mean_over_categories": float(np.mean(list(by_category.values()))),
        "chance": float(np.mean([(category[gallery] == category[row]).mean() for row in queries])),
    }
    histograms = baselines.colour_histograms(recommender.release)
    cosines = np.where(gallery, np.nan_to_num(histograms[queries]) @ np.nan_to_num(histograms).T, -np.inf)
    cosines[np.arange(len(queries)), queries] = -np.inf
    coloured = _share_category(top(cosines, K), queries, category)
    metrics["colour_histogram_precision_at_10"] = float(coloured.mean())
    if exclude_same is not None:
        same = catalogue.items[exclude_same].to_numpy()
        elsewhere = np.stack([
            index.search(vector[None], k=K, allowed=_without(gallery, row) & (same != same[row]))[0][0]
            for row, vector in zip(queries, vectors, strict=True)
        ])  # fmt: skip
        strict = _share_category(elsewhere, queries, category).mean(axis=1)
        metrics[f"precision_at_10_excluding_same_{exclude_same}"] = float(strict.mean())
        metrics[f"precision_at_10_excluding_same_{exclude_same}_interval"] = interval(strict)
    shown = np.linspace(0, len(queries) - 1, min(SHOWN, len(queries))).astype(int)
    examples = [
        Example(
            str(category[queries[at]]), [int(queries[at])], [int(r) for r in found[at] if r >= 0], right[at].tolist()
        )
        for at in shown
    ]
    return metrics, examples


def _queries_and_gallery(
    catalogue: Catalogue, category: np.ndarray, split_column: str | None
) -> tuple[np.ndarray, np.ndarray]:
    """Rows that ask, and a mask of those that may answer: by the split column, or each against all others."""
    known = catalogue.items["image"].notna().to_numpy() & np.array([c is not None for c in category])
    if split_column is not None:
        part = catalogue.items[split_column].astype(str).str.lower().to_numpy()
        return np.flatnonzero(known & np.isin(part, HELD_OUT_SPLITS)), known & (part == "train")
    rows = np.flatnonzero(known)
    return rows[:: max(1, len(rows) // QUERIES)][:QUERIES], known


def _embed(recommender: Recommender, catalogue: Catalogue, rows: np.ndarray) -> np.ndarray:
    parts = [
        recommender.embed([catalogue.picture(row) for row in rows[start : start + 16]])
        for start in track(range(0, len(rows), 16), "asking with pictures")
    ]
    return np.concatenate(parts)


def _without(gallery: np.ndarray, row: int) -> np.ndarray:
    others = gallery.copy()
    others[row] = False
    return others


def _share_category(found: np.ndarray, queries: np.ndarray, category: np.ndarray) -> np.ndarray:
    return (found >= 0) & (category[found] == category[queries][:, None])


def _ranking(recommender: Recommender, catalogue: Catalogue) -> tuple[dict[str, Any], list[Example]]:
    """recall@k and nDCG@k on what shoppers touched after the cut, and had not touched before."""
    assert catalogue.interactions is not None
    items = len(catalogue.items)
    cut = split.at(catalogue.interactions, recommender.release.manifest.data["cutoff"])
    held = split.held_out(cut, items=items)
    metrics: dict[str, Any] = {
        "test_users": len(held.users),
        "candidate_items": int(held.candidates.sum()),
        "min_items_per_user": split.MIN_ITEMS_PER_USER,
        "min_users_per_item": split.MIN_USERS_PER_ITEM,
    }
    if not held.users:
        return metrics, []
    held = _sampled(held)
    asked = [
        recommender.recommend([Query(user_id=user, k=MAX_K)])[0] for user in track(held.users, "asking for shoppers")
    ]
    ranked = np.stack([_candidate_rows(answer, recommender, held.candidates) for answer in asked])
    metrics |= _measure(ranked, held, intervals=True)
    rivals = {
        "popularity": baselines.popularity(cut, held, items=items, k=20),
        "item_knn": baselines.item_knn(cut, held, items=items, k=20),
    }
    index = recommender.release.index
    if index is not None:
        rivals["picture_only"] = baselines.likeness(index.vectors(np.arange(items)), held, k=20)
        rivals["colour_histogram"] = baselines.likeness(baselines.colour_histograms(recommender.release), held, k=20)
    metrics["baselines"] = {name: _measure(rows, held) for name, rows in rivals.items()}
    if (truth := _best_possible(catalogue, held)) is not None:
        metrics["best_possible"] = _measure(truth, held)
        metrics["share_of_best_possible_ndcg_at_10"] = metrics["ndcg_at_10"] / metrics["best_possible"]["ndcg_at_10"]
    return metrics, [
        _shopper_example(recommender, *one) for one in list(zip(held.users, held.seen, asked, strict=True))[:SHOWN]
    ]


def _sampled(held: split.HeldOut) -> split.HeldOut:
    if len(held.users) <= SHOPPERS:
        return held
    kept = np.linspace(0, len(held.users) - 1, SHOPPERS).astype(int)
    return split.HeldOut(
        [held.users[i] for i in kept], [held.seen[i] for i in kept], [held.relevant[i] for i in kept], held.candidates
    )


def _candidate_rows(answer: Recommendation, recommender: Recommender, candidates: np.ndarray) -> np.ndarray:
    rows = np.array([recommender.release.items.row(item.item_id) for item in answer.items], dtype=np.int64)
    rows = rows[candidates[rows]][:20]
    return np.pad(rows, (0, 20 - len(rows)), constant_values=-1)


def _measure(ranked: np.ndarray, held: split.HeldOut, *, intervals: bool = False) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, measure in (("recall", recall_at), ("ndcg", ndcg_at)):
        for k in (10, 20):
            each = measure(ranked, held.relevant, k)
            values[f"{name}_at_{k}"] = float(each.mean())
            if intervals:
                values[f"{name}_at_{k}_interval"] = interval(each)
    return values


def _best_possible(catalogue: Catalogue, held: split.HeldOut) -> np.ndarray | None:
    """The ranking by the tastes that made the log; only drawn catalogues know them."""
    path = catalogue.path / "truth.npy"
    if not path.exists() or catalogue.users is None:
        return None
    utility = np.load(path, mmap_mode="r", allow_pickle=False)
    row_of = {user: row for row, user in enumerate(catalogue.users["user_id"])}
    if utility.shape != (len(row_of), len(catalogue.items)):
        return None
    return baselines.truth(utility, np.array([row_of[user] for user in held.users]), held, k=20)


def _shopper_example(recommender: Recommender, user: str, seen: np.ndarray, answer: Recommendation) -> Example:
    row = recommender.release.items.row
    notes = [", ".join(f"{name} {part:.2f}" for name, part in item.terms.items()) for item in answer.items[:K]]
    return Example(
        "a shopper", [int(r) for r in seen[-5:]], [row(item.item_id) for item in answer.items[:K]], notes=notes
    )


def write_metrics(metrics: dict[str, Any], folder: Path) -> None:
    """Write metrics.json."""
    (folder / "metrics.json").write_text(json.dumps(metrics, indent=1, sort_keys=True) + "\n")
