"""A real Triton server, and which tests begin first."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.recommender.release import Release
from service.serving.model_repository import install
from tests.conftest import made_once
from tests.processes import HOME, Triton, triton


@pytest.fixture(scope="session")
def tritonserver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program, installed from PyPI into an environment of its own."""
    if (HOME / ".triton" / "installed").exists():
        return HOME / ".triton" / "tritonserver"

    def installed(folder: Path) -> None:
        done = subprocess.run(
            [HOME / "triton" / "install.sh", folder], env={**os.environ, "PYTHON": sys.executable},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            pytest.skip(f"no Triton server can be installed here: {done.stderr[-300:]}")

    return made_once(tmp_path_factory, "triton", installed) / "tritonserver"


@pytest.fixture
def server(tritonserver: Path, release_folder: Path, tmp_path: Path) -> Iterator[Triton]:
    """A Triton that serves release 1 from the project's repository, unchanged."""
    with triton(tritonserver, tmp_path) as made:
        install(Release.open(release_folder), made.repository)
        made.start()
        yield made


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The README's own path first: it is the longest, and would go on alone if it began last."""
    items.sort(key=lambda item: item.path.name != "test_newcomer.py")
