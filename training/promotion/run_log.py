"""What the run of a release tells in MLflow: parameters, figures, learning curve, release, report and pictures."""

import json
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from service.recommender.release import Manifest, Release
from training.evaluation.samples import write_samples
from training.promotion.mlflow_client import NOTE

LONGEST = 250  # characters of a parameter, as older servers take it
REPORT = Path("report", "report.html")
# the figures that a line about a release names, where it has them
TOLD = (("ranking", "ndcg_at_10", "nDCG@10"), ("retrieval", "precision_at_10", "precision@10 of photos"))


def log_release(client: Any, run_id: str, release: Path, manifest: Manifest, *, artefact: str) -> None:
    """client: MlflowClient; artefact: name of the folder that the release becomes. MLflow shows figures whose names
    begin alike, up to a slash, as one group."""
    from mlflow.entities import Metric, Param

    made = {"preprocessing": manifest.preprocessing, "rows": manifest.rows, "data": manifest.data}
    parameters = dict(_flat(manifest.training | made, "."))
    now = int(datetime.now(UTC).timestamp() * 1000)
    numbers = [(name, value) for name, value in _flat(manifest.metrics, "/") if isinstance(value, int | float)]
    figures = [Metric(name, float(value), now, 0) for name, value in numbers]
    figures += [
        Metric(f"encoder/{name}", value, now, step)
        for step, epoch in enumerate(learning_curve(release), start=1)
        for name, value in epoch.items()
    ]
    for start in range(0, len(figures), 1000):
        client.log_batch(run_id, metrics=figures[start : start + 1000])
    texts = [Param(name, str(value)[:LONGEST]) for name, value in parameters.items()]
    for start in range(0, len(texts), 100):
        client.log_batch(run_id, params=texts[start : start + 100])
    tags = {f"vitrine.{name}": value for name, value in manifest.code.items()}
    tags |= {"vitrine.data": manifest.data["fingerprint"], NOTE: describe(manifest)}
    for name, value in tags.items():
        client.set_tag(run_id, name, value)
    client.log_artifacts(run_id, str(release), artefact)
    if (release / REPORT).exists():
        client.log_artifact(run_id, str(release / REPORT))  # where it is seen first
    with tempfile.TemporaryDirectory() as folder:
        write_samples(Release.open(release), Path(folder))
        client.log_artifacts(run_id, folder, "samples")


def describe(manifest: Manifest) -> str:
    """A line about a release."""
    rows = ", ".join(f"{count} {name}" for name, count in manifest.rows.items() if count)
    figures = [
        f"{called} {value:.4f}"
        for group, name, called in TOLD
        if isinstance(value := manifest.metrics.get(group, {}).get(name), float)
    ]
    return "; ".join([f"Release {manifest.release}: {rows}", *figures])


def learning_curve(release: Path) -> list[dict[str, float]]:
    """What the encoder's training measured after each epoch."""
    path = release / "report" / "training.json"
    return list(json.loads(path.read_text())) if path.exists() else []


def _flat(values: dict[str, Any], separator: str, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Names of nested values, joined; letters that MLflow refuses become underscores."""
    for name, value in values.items():
        key = prefix + "".join(letter if letter.isalnum() or letter in "_-./ " else "_" for letter in name)
        if isinstance(value, dict):
            yield from _flat(value, separator, f"{key}{separator}")
        elif isinstance(value, list) and name.endswith("_interval"):
            yield from ((f"{key}.{end}", number) for end, number in zip(("low", "high"), value, strict=False))
        elif not isinstance(value, list):
            yield key, value
