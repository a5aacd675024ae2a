"""Train a release like another one under a split of its own, for evaluation protocols that need that."""

from dataclasses import replace
from pathlib import Path

from service.errors import CatalogueError
from service.recommender.release import Manifest
from training.data.split import PROTOCOLS
from training.encoder.trainer import EncoderParameters
from training.options import Options
from training.pipeline import train
from training.ranker.fitting import RankerParameters


def train_again(
    manifest: Manifest, catalogue: Path, releases: Path, *, protocol: str, weights: str | None, user_key: str
) -> Path:
    """Train a release like the one of `manifest`. The encoder as well: co-touched items are what it learns from, and
    those of the held-out part must not teach. weights: the file that its encoder started from, if it was one.

    Raises CatalogueError where that file is needed and not given, and for a protocol that is none."""
    if protocol not in PROTOCOLS[1:]:
        raise CatalogueError(f"--retrain {protocol}: expected {' or '.join(PROTOCOLS[1:])}")
    told, ranked = manifest.training["encoder"], manifest.training["ranker"]
    if ranked is None:
        raise CatalogueError("the release was trained without interactions: there is nothing to hold out")
    start = EncoderParameters(**told) if told else EncoderParameters()
    if told and start.weights not in ("imagenet", "none"):
        if weights is None:
            raise CatalogueError(f"its encoder started from {start.weights}: say where that is with --weights")
        start = replace(start, weights=weights)
    path = train(
        Options(
            catalogue=catalogue,
            releases=releases,
            encoder=start,
            ranker=RankerParameters(**ranked),
            user_key=user_key,
            split_column=manifest.training["split_column"],
            protocol=protocol,
            choose=manifest.training.get("chosen", False),
        ),
    )
    assert path is not None
    return path
