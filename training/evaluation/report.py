"""An evaluation as a page that can be mailed: figures, and grids of pictures."""

import base64
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from service.errors import NotFound
from service.recommender.release import Release
from training.evaluation.pages import write_page

HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Example:
    """One query of the report. Rows of items; right: which answers are of the query's category, or were touched next;
    truth: some of what was touched next."""

    title: str
    query: list[int]
    answers: list[int]
    right: list[bool] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    truth: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Encounter:
    """One photo, answered for nobody and for users of different taste. shows: the row of the item in the photo;
    liked: for each answer some of what the user is shown without a photo, none for nobody; answers: rows."""

    shows: int
    liked: list[list[int]]
    answers: list[list[int]]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """metrics: nested plain numbers; lookalikes, recommendations, encounters: examples for the report."""

    metrics: dict[str, Any]
    lookalikes: list[Example]
    recommendations: list[Example]
    encounters: list[Encounter] = field(default_factory=list)


COLD = ("cold_items", "cold_users")


def write_report(evaluation: Evaluation, release: Release, path: Path) -> None:
    """Write one self-contained page."""
    shown = {
        row
        for example in (*evaluation.lookalikes, *evaluation.recommendations)
        for row in (*example.query, *example.answers, *example.truth)
    } | {
        row
        for encounter in evaluation.encounters
        for row in (encounter.shows, *(row for line in (*encounter.liked, *encounter.answers) for row in line))
    }
    write_page(
        HERE / "report.html.j2",
        path,
        manifest=release.manifest,
        metrics=_with_defaults(evaluation.metrics),
        ranking=_judged_rows(evaluation.metrics.get("ranking", {})),
        curves=_curves(_judged_rows(evaluation.metrics.get("ranking", {}))),
        cold={name: _judged_rows(evaluation.metrics.get("ranking", {}).get(name, {})) for name in COLD},
        best_group=_best_group(evaluation.metrics.get("ranking", {}).get("by_group", {})),
        lookalikes=evaluation.lookalikes,
        recommendations=evaluation.recommendations,
        encounters=evaluation.encounters,
        pictures={row: picture_of(release, row) for row in shown},
        titles={row: release.items.describe(row)["title"] or release.items.ids[row] for row in shown},
    )


def write_segments(release: Release, path: Path) -> None:
    """Write one self-contained page: each segment with pictures of its typical items."""
    assert release.segments is not None
    rows = {item: release.items.row(item) for segment in release.segments.segments for item in segment.items}
    write_page(
        HERE / "segments.html.j2",
        path,
        release=release.number,
        segments=release.segments.segments,
        pictures={item: picture_of(release, row) for item, row in rows.items()},
        titles={item: release.items.describe(row)["title"] or item for item, row in rows.items()},
    )


def _with_defaults(metrics: dict[str, Any]) -> dict[str, Any]:
    return {
        "ranking": None,
        "retrieval": None,
        "index": None,
        "stages": None,
        "with_a_photo_and_a_user": None,
        **metrics,
    }


def _judged_rows(ranking: dict[str, Any]) -> list[dict[str, Any]]:
    """The release among its baselines, best first, each with its share of the best nDCG@10."""
    if "ndcg_at_10" not in ranking:
        return []
    rows = [{"name": "this release", "ours": True, **ranking}]
    rows += [{"name": name.replace("_", " "), "ours": False, **values} for name, values in ranking["baselines"].items()]
    if "best_possible" in ranking:
        rows.append({"name": "best possible", "ours": False, **ranking["best_possible"]})
    rows.sort(key=lambda row: -row["ndcg_at_10"])
    best = rows[0]["ndcg_at_10"] or 1.0
    return [{**row, "share": row["ndcg_at_10"] / best} for row in rows]


def _curves(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """recall@1 to @20 of each row as the points of a line in a box of 560 x 240, and where its name stands."""
    highest = max((max(row["recall_curve"]) for row in rows), default=0.0) or 1.0
    curves, below = [], -12.0
    for row in sorted(rows, key=lambda row: -row["recall_curve"][-1]):
        heights = [240 - 240 * value / highest for value in row["recall_curve"]]
        points = " ".join(f"{560 * at / (len(heights) - 1):.1f},{height:.1f}" for at, height in enumerate(heights))
        below = max(heights[-1], below + 12)  # names must not cover each other
        curves.append({"name": row["name"], "ours": row["ours"], "y": below, "points": points})
    return curves


def _best_group(by_group: dict[str, Any]) -> float:
    figures = [group["ndcg_at_10"] for found in by_group.values() for group in found["groups"].values()]
    return max(figures, default=0.0) or 1.0


def picture_of(release: Release, row: int) -> str | None:
    """The JPEG of an item in base64, as a page takes it; None where it has none."""
    try:
        return base64.b64encode(release.thumbnails.jpeg(row)).decode()
    except NotFound:
        return None
