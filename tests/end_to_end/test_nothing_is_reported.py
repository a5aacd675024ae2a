"""No library reports to anybody, and nothing is written outside the folders that a command works in."""

from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from tests.processes import free_port
from tests.traced import Traced, needs_strace, run_traced, serve_traced

pytestmark = needs_strace


def assert_quiet(traced: Traced) -> None:
    """Nobody was called, nothing was written elsewhere, and the home folder is as empty as it was."""
    assert traced.connections() == set()
    assert traced.written() == set()
    assert list((traced.folder / "home").iterdir()) == []


def test_serving_is_quiet(release_folder: Path, photo: bytes, tmp_path: Path) -> None:
    """All engines are tried at start; a photo and a user are answered."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"

    def ready() -> bool:
        with suppress(httpx.TransportError):
            return httpx.get(f"{url}/readyz").status_code == 200
        return False

    def use() -> None:
        answer = httpx.post(f"{url}/recommend", files={"image": photo}, data={"user_id": "00007"}, timeout=30)
        assert answer.json()["tier"] == "ranked"

    arguments = (release_folder, "--port", str(port), "--grpc-port", "0", "--metrics-port", "0")
    assert_quiet(serve_traced(tmp_path, *arguments, ready=ready, use=use))


@pytest.mark.slow
def test_every_command_is_quiet(boutique_folder: Path, tmp_path: Path) -> None:
    """check, train, tune, gate, promote, status, recommend, evaluate, and bento; the registry is a file here."""
    releases, catalogue = tmp_path / "releases", boutique_folder
    quick = ("--backbone", "convnet", "--weights", "none", "--epochs", "1", "--image-size", "64",
             "--last-layer-steps", "100", "--precision", "int8", "--least-overlap", "0")  # fmt: skip
    thresholds = tmp_path / "gates.toml"  # what one epoch has learned, int8 may answer otherwise
    thresholds.write_text("[pictures]\nleast_precision_overlap = 0.0\n")
    commands: list[tuple[str | Path, ...]] = [
        ("check", catalogue),
        ("train", catalogue, "--releases", releases, *quick),
        ("tune", catalogue, "--releases", releases, "--trials", "2"),
        ("gate", "1", "--releases", releases, "--catalogue", catalogue, "--thresholds", thresholds),
        ("promote", "1", "--to", "production", "--reason", "first", "--releases", releases, "--thresholds", thresholds),
        ("status", "--releases", releases),
        ("recommend", releases / "1", "--user", "00007"),
        ("evaluate", releases / "1", "--catalogue", catalogue, "--out", tmp_path / "evaluation"),
    ]
    for command in commands:
        assert_quiet(run_traced(tmp_path, *command))
    # a bento goes into BentoML's store, which lies in the home folder
    packing = ("bento", "1", "--releases", releases, "--out", tmp_path / "dist", "--default-user-key")
    traced = run_traced(tmp_path, *packing)
    assert traced.connections() == set()
    assert traced.written() == set()
    assert [path.name for path in (tmp_path / "home").iterdir()] == ["bentoml"]
