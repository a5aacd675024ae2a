"""A repository with a release in it, and what becomes of its network on a full disk."""

import shutil
from pathlib import Path

import pytest

from service.recommender.release import Release
from service.serving import model_repository as installing
from tests.processes import HOME


@pytest.fixture
def model_repository(tmp_path: Path, release_folder: Path) -> Path:
    """The project's repository with release 1 installed."""
    ignored = shutil.ignore_patterns("[0-9]*")
    folder = Path(shutil.copytree(HOME / "model_repository", tmp_path / "repository", ignore=ignored))
    installing.install(Release.open(release_folder), folder)
    return folder


def truncated(encoder: Path) -> None:
    """As a full disk leaves it."""
    encoder.write_bytes(encoder.read_bytes()[:-1000])
