"""An evaluation as a page that can be mailed: figures, and grids of pictures."""

import base64
from pathlib import Path
from typing import Any

import jinja2

from service.errors import NotFound
from service.release import Release
from training.evaluate import Evaluation

TEMPLATE = Path(__file__).with_name("report.html.j2")


def write_report(evaluation: Evaluation, release: Release, path: Path) -> None:
    """Write one self-contained page."""
    shown = {
        row
        for example in (*evaluation.lookalikes, *evaluation.recommendations)
        for row in (*example.query, *example.answers)
    }
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    page = environment.from_string(TEMPLATE.read_text()).render(
        manifest=release.manifest,
        metrics=_with_defaults(evaluation.metrics),
        ranking=_ranking_rows(evaluation.metrics),
        lookalikes=evaluation.lookalikes,
        recommendations=evaluation.recommendations,
        pictures={row: _picture(release, row) for row in shown},
        titles={row: release.items.describe(row)["title"] or release.items.ids[row] for row in shown},
    )
    path.write_text(page)


def _with_defaults(metrics: dict[str, Any]) -> dict[str, Any]:
    return {"ranking": None, "retrieval": None, "index": None, "stages": None, **metrics}


def _ranking_rows(metrics: dict[str, Any]) -> list[dict[str, Any]]:
    ranking = metrics.get("ranking", {})
    if "ndcg_at_10" not in ranking:
        return []
    rows = [{"name": "this release", "ours": True, **ranking}]
    rows += [{"name": name.replace("_", " "), "ours": False, **values} for name, values in ranking["baselines"].items()]
    if "best_possible" in ranking:
        rows.append({"name": "best possible", "ours": False, **ranking["best_possible"]})
    rows.sort(key=lambda row: -row["ndcg_at_10"])
    best = rows[0]["ndcg_at_10"] or 1.0
    return [{**row, "share": row["ndcg_at_10"] / best} for row in rows]


def _picture(release: Release, row: int) -> str | None:
    try:
        return base64.b64encode(release.thumbnails.jpeg(row)).decode()
    except NotFound:
        return None
