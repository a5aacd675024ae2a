"""`vitrine drift`: of a folder of photos, and of running services, as a table, as JSON and as a page."""

import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from service.recommender.drift.reference import CATEGORIES, EMBEDDINGS, WHAT
from tests import colours
from tests.processes import FIXTURES, serve
from tests.service.observability.test_drift_monitor import send
from tests.training.cli.test_commands import vitrine


def write(folder: Path, photos: Sequence[bytes]) -> Path:
    """A folder of photos."""
    folder.mkdir()
    for number, photo in enumerate(photos):
        (folder / f"{number}.png").write_bytes(photo)
    return folder


@pytest.fixture(scope="module")
def reds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos of one category, and a file that is no photo."""
    folder = tmp_path_factory.mktemp("photos") / "reds"
    write(folder, colours.photos(120, rng=np.random.default_rng(1), colours=["red"]))
    (folder / "notes.txt").write_text("mine")
    return folder


def test_a_folder_of_one_category_is_drift(colour_release: Path, reds: Path, tmp_path: Path) -> None:
    """Exit code 1; the table says in what, and names where the most of it comes from; what is no photo is named."""
    done = vitrine("drift", colour_release, "--images", reds, "--out", tmp_path / "page.html", code=1)
    assert re.search(r"categories .* drift .*red \(2\d% expected, 100% seen\)", done.stdout)
    assert "1 files are no photos: notes.txt" in done.stderr
    assert done.stdout.splitlines()[-1] == str(tmp_path / "page.html")


def test_photos_like_the_catalogues_are_none(colour_release: Path, tmp_path: Path) -> None:
    """Exit code 0, and every figure within chance; --json for scripts."""
    folder = write(tmp_path / "photos", colours.photos(240, rng=np.random.default_rng(2)))
    arguments = ("drift", colour_release, "--images", folder, "--out", tmp_path / "page.html", "--json")
    said = json.loads(vitrine(*arguments).stdout)
    assert (said["release"], said["photos"], said["seconds"]) == ("1", 240, None)
    assert [shift["what"] for shift in said["shifts"]] == list(WHAT)
    assert all(shift["psi"] <= shift["chance"] for shift in said["shifts"])


def test_the_page_has_two_bars_for_each_bin_and_pictures(colour_release: Path, reds: Path, tmp_path: Path) -> None:
    """Expected and seen, in shares; the verdict in words; typical items by their pictures."""
    out = tmp_path / "page.html"
    said = json.loads(vitrine("drift", colour_release, "--images", reds, "--out", out, "--json", code=1).stdout)
    page = out.read_text()
    bins = sum(len(shift["names"]) for shift in said["shifts"])
    assert page.count('<rect class="expected"') == page.count('<rect class="seen"') == bins
    clusters = next(shift["names"] for shift in said["shifts"] if shift["what"] == EMBEDDINGS)
    assert page.count("data:image/jpeg;base64,") == len(clusters)
    assert re.search(r"Drift: PSI \d.*Most of it: red", page)
    assert re.search(r'aria-label="2\d\.\d % expected, 100\.0 % seen"', page)
    assert "http" not in page, "it loads nothing"


def test_services_tell_it_together(colour_release: Path, tmp_path: Path) -> None:
    """Each saw another colour: together they saw what is expected, alone neither did."""
    halves = (["red", "green"], ["blue", "yellow"])
    with serve(colour_release, tmp_path / "a") as one, serve(colour_release, tmp_path / "b") as other:
        for service, names in zip((one, other), halves, strict=True):
            send(service, colours.photos(80, rng=np.random.default_rng(3), colours=names))
        urls = [f"http://127.0.0.1:{service.metrics}" for service in (one, other)]
        out = ("--out", tmp_path / "page.html", "--json")
        alone = json.loads(vitrine("drift", "--from", urls[0], *out, code=1).stdout)
        both = json.loads(vitrine("drift", "--from", urls[0], "--from", urls[1], *out).stdout)
    assert (alone["photos"], both["photos"]) == (80, 160)
    found = [{shift["what"]: shift["verdict"] for shift in said["shifts"]}[CATEGORIES] for said in (alone, both)]
    assert found == ["drift", "no drift"]
    assert "of the last 60 minutes" in (tmp_path / "page.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "from one place"),
        (("--images", "tests"), "name the release"),
        (("--images", "tests", "--from", "http://127.0.0.1:1"), "from one place"),
        (("--from", "http://127.0.0.1:1"), "does not answer"),
        ((FIXTURES / "release-format-1", "--images", "tests"), "packaged without drift.json"),
        ((FIXTURES / "release-format-1", "--images", "no/such/folder"), "no such folder"),
    ],
)
def test_what_is_missing_is_said_in_one_line(arguments: tuple[str | Path, ...], message: str) -> None:
    """Where photos come from, which release, and whether it says what it expects."""
    assert message in vitrine("drift", *arguments, code=1).stderr.splitlines()[-1]


def test_a_folder_without_photos_is_said(colour_release: Path, tmp_path: Path) -> None:
    """In place of a page about none."""
    (tmp_path / "notes.txt").write_text("mine")
    done = vitrine("drift", colour_release, "--images", tmp_path, "--out", tmp_path / "page.html", code=1)
    assert "holds no photo" in done.stderr.splitlines()[-1]
