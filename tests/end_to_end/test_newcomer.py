"""The README's own path, as a newcomer walks it: the demo release, trained by `make`, served, asked, measured."""

import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from tests.hostile import encode
from training.demo.garments import CATEGORIES, PATTERNS, Garment, draw

HOME = Path(__file__).parent.parent.parent

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def served() -> Iterator[str]:
    """`make serve`, on a free port, until it is ready."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    process = subprocess.Popen(["make", "serve", f"PORT={port}"], cwd=HOME, start_new_session=True)
    try:
        deadline = time.monotonic() + 45 * 60  # beside the other tests; alone it takes about ten minutes
        while subprocess.run(["curl", "-sf", f"http://127.0.0.1:{port}/readyz"], capture_output=True).returncode:
            assert process.poll() is None, "make serve ended"
            assert time.monotonic() < deadline
            time.sleep(0.5)
        yield port
    finally:
        os.killpg(process.pid, 15)
        process.wait(timeout=60)


def test_make_ask_gets_ranked_items(served: str) -> None:
    """The second command of the README answers with three items for the user."""
    done = subprocess.run(
        ["make", "--silent", "ask", f"PORT={served}"], cwd=HOME, capture_output=True, text=True, check=True
    )
    answer = json.loads(done.stdout)
    assert (answer["tier"], len(answer["items"])) == ("ranked", 3)
    assert answer["query"]["category"] == "dress"
    assert answer["query"]["in_catalogue"] is True


def test_a_picture_of_nothing_is_told_from_a_garment(served: str) -> None:
    """`in_catalogue` is false for noise, flat tones and waves, and true for garments that the release never saw."""
    url = f"http://127.0.0.1:{served}/recommend"

    def in_catalogue(data: bytes) -> bool:
        return httpx.post(url, files={"image": data}).json()["query"]["in_catalogue"]

    rng = np.random.default_rng(0)
    rings = 127 * np.sin(np.hypot(*np.mgrid[-150:150, -150:150]) / 6) + 128
    strange = [rng.integers(0, 256, (300, 300)), np.zeros((300, 300)), np.full((300, 300), 255), rings]
    assert not any(in_catalogue(encode(Image.fromarray(p.astype(np.uint8)), "PNG")) for p in strange)
    # drawn anew: an item of the catalogue itself would be its own nearest, whatever the threshold
    new = [
        Garment(category, "teal", PATTERNS[at % len(PATTERNS)], "studio", 0.8, 4.0, 1.0, seed=9_000_000 + at)
        for at, category in enumerate(CATEGORIES)
    ]
    assert sum(in_catalogue(encode(draw(garment), "JPEG")) for garment in new) >= len(new) - 1


def test_the_demo_reaches_seven_tenths_of_the_best_possible(served: str) -> None:
    """nDCG@10 against the known tastes, and above every baseline; features pay, and carry over to what is new."""
    ranking = json.loads((HOME / "releases" / "1" / "report" / "metrics.json").read_text())["ranking"]
    assert ranking["share_of_best_possible_ndcg_at_10"] >= 0.7
    rivals = dict(ranking["baselines"])
    assert rivals.pop("factors_alone")["ndcg_at_10"] > rivals["factors_without_features"]["ndcg_at_10"]
    for name, baseline in rivals.items():
        assert ranking["ndcg_at_10"] > baseline["ndcg_at_10"], name
    for cold in ("cold_items", "cold_users"):
        assert ranking[cold]["share_of_best_possible_ndcg_at_10"] >= 0.6, cold


def test_torchrun_trains_with_two_processes(boutique_folder: Path, tmp_path: Path) -> None:
    """Two processes over gloo make one release, and the second one leaves nothing of its own behind."""
    arguments = ["--backbone", "convnet", "--weights", "none", "--epochs", "2", "--image-size", "64", "--dim", "16",
                 "--last-layer-steps", "100", "--factors", "8", "--sweeps", "3"]  # fmt: skip
    command = [HOME / ".venv" / "bin" / "torchrun", "--nproc-per-node", "2", "-m", "training", "train", boutique_folder]
    done = subprocess.run(
        [*command, "--releases", tmp_path, *arguments], cwd=HOME, capture_output=True, text=True, check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.stdout.splitlines()[-1] == str(tmp_path / "1")
    assert not list(tmp_path.glob(".stages/*.part"))
