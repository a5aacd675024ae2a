"""What is in a Triton model repository, and what may go. Versions get there by service/serving/model_repository.py."""

import re
import shutil
from collections.abc import Collection
from pathlib import Path

from service.serving.model_repository import MODEL, PLAN_MODEL


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
