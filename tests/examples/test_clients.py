"""The example clients work against a real service."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import Service

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
NEEDED = 18  # major version of node that has fetch, FormData and Blob


def missing() -> str | None:
    """Why the JavaScript client cannot run here, or None."""
    if shutil.which("node") is None:
        return "node is not installed"
    version = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout.strip()
    return None if int(version[1:].partition(".")[0]) >= NEEDED else f"node is {version}; {NEEDED} or later is needed"


@pytest.fixture(params=["python", "javascript"])
def client(request: pytest.FixtureRequest) -> list[str]:
    """The command that starts an example."""
    if request.param == "python":
        return [sys.executable, str(EXAMPLES / "client.py")]
    if reason := missing():
        pytest.skip(f"examples/client.mjs: {reason}")
    return ["node", str(EXAMPLES / "client.mjs")]


@pytest.fixture
def photo_file(boutique_folder: Path) -> str:
    """The picture of item 0004, a dress."""
    return str(boutique_folder / "images" / "0004.jpg")


def test_it_prints_items_with_their_reasons(client: list[str], service: Service, photo_file: str) -> None:
    """A photo and a user give five items: id, score, title, the terms of the score, and the user's past items."""
    done = subprocess.run([*client, photo_file, "00007", f"http://{service.address}"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    head, *items = done.stdout.splitlines()
    assert head == "release 1, tier ranked"
    assert len(items) == 5
    for item in items:
        assert re.fullmatch(r"\d{4}  -?\d+\.\d\d  \w.*  \((\w+ [+-]?\d+\.\d\d(, )?)+\)  because .*", item), item


def test_it_says_what_the_service_refused(client: list[str], service: Service, tmp_path: Path) -> None:
    """What is no picture ends it with the status and the detail of the problem."""
    (tmp_path / "photo.jpg").write_text("no picture")
    command = [*client, str(tmp_path / "photo.jpg"), "00007", f"http://{service.address}"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("415: ")
