"""What is in a Triton model repository, and what may go. Versions get there by service/serving/model_repository.py."""

import re
import shutil
from collections.abc import Collection
from pathlib import Path

from service.errors import ReleaseMismatch
from service.files import digest
from service.recommender.release import Manifest
from service.serving.model_repository import MODEL, PLAN_MODEL


def release_with(encoder: Path, releases: Path) -> Path:
    """The newest release whose encoder this is. Raises ReleaseMismatch where there is none."""
    fingerprint = digest(encoder)
    for number in sorted((int(path.name) for path in releases.glob("[0-9]*") if path.name.isdigit()), reverse=True):
        release = releases / str(number)
        if (Manifest.read(release).encoder or {}).get("fingerprint") == fingerprint:
            return release
    raise ReleaseMismatch(
        f"no release in {releases} holds this encoder, and a version has the number of its release: package it first, "
        "with vitrine train and without --only"
    )


def versions(model: Path) -> list[int]:
    """The versions of a model, in order."""
    return sorted(
        int(path.name) for path in model.glob("*") if path.is_dir() and re.fullmatch("[1-9][0-9]*", path.name)
    )


def prune(repository: Path, keep: Collection[int], *, dry_run: bool = False) -> list[Path]:
    """Remove every version of our models that is not to be kept; returns what was (or would be) removed."""
    found = [
        repository / name / str(version)
        for name in (MODEL, PLAN_MODEL)
        for version in versions(repository / name)
        if version not in keep
    ]
    if not dry_run:
        for path in found:
            aside = path.with_name(f".removed-{path.name}")  # the server unloads it before its files go
            path.rename(aside)
            shutil.rmtree(aside)
    return found
