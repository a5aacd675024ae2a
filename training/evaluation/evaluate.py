"""Measure a packaged release as it will serve: what it finds, whom it serves badly, how long it takes."""

import json
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from service.recommender.pipeline import Recommender
from service.recommender.query import Query
from training.data import split
from training.data.catalogue import Catalogue
from training.evaluation.evaluated_release import EvaluatedRelease
from training.evaluation.photo_and_user import measure as measure_encounters
from training.evaluation.ranking import measure_ranking
from training.evaluation.report import Encounter, Evaluation, Example
from training.evaluation.retrieval import measure_retrieval
from training.evaluation.users_by_key import for_catalogue


def evaluate(
    recommender: Recommender,
    catalogue: Catalogue,
    *,
    split_column: str | None = None,
    exclude_same: str | None = None,
    negatives: int | None = None,
) -> Evaluation:
    """exclude_same: a column; neighbours that share the query's value in it do not count, in a second figure;
    negatives: rank each relevant item also among so many others, as older papers do."""
    recommender = for_catalogue(recommender, catalogue)
    metrics: dict[str, Any] = {}
    lookalikes: list[Example] = []
    recommendations: list[Example] = []
    encounters: list[Encounter] = []
    release = recommender.release
    if release.index is not None and catalogue.items["category"].notna().any():
        metrics["retrieval"], lookalikes = measure_retrieval(recommender, catalogue, split_column, exclude_same)
    if release.manifest.index is not None:
        metrics["index"] = {
            name: release.manifest.index[name] for name in ("recall_at_10", "strangers_refused")
            if name in release.manifest.index
        }  # fmt: skip
    if release.ranker is not None and catalogue.interactions is not None:
        data = release.manifest.data
        cut = split.make(
            catalogue.interactions,
            data.get("protocol", "temporal"),
            test_from=data["cutoff"],
            seed=release.manifest.training["ranker"]["seed"],
        )
        metrics["ranking"], recommendations = measure_ranking(EvaluatedRelease(recommender, catalogue, cut, negatives))
        if release.index is not None and release.index.shape[0] == len(catalogue.items):
            held = split.warm(cut, items=len(catalogue.items))
            met, encounters = measure_encounters(recommender, catalogue, held)
            metrics |= {"with_a_photo_and_a_user": met} if met else {}
    return Evaluation(metrics, lookalikes, recommendations, encounters)


def stage_times(recommender: Recommender, catalogue: Catalogue, *, queries: int = 50) -> dict[str, float]:
    """Median milliseconds of each stage of the pipeline, over single queries on this machine."""
    seconds: dict[str, list[float]] = defaultdict(list)
    watched = Recommender(
        recommender.release,
        encoder=recommender.encoder,
        user_key=recommender.users.key,
        observe=lambda stage, took: seconds[stage].append(took),
    )
    watched = for_catalogue(watched, catalogue)
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


def write_metrics(metrics: dict[str, Any], folder: Path) -> None:
    """Write metrics.json."""
    (folder / "metrics.json").write_text(json.dumps(metrics, indent=1, sort_keys=True) + "\n")
