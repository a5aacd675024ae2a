"""The stages together: skipped when nothing changed, whole or not at all, the same from the same inputs."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from service.errors import BadQuery, CatalogueError, ReleaseMismatch
from service.recommender.golden import prove
from service.recommender.pipeline import Recommender
from service.recommender.query import Query
from service.recommender.release import Manifest, Release
from tests.processes import HOME
from tests.quick import options
from training.data.split import read_cut
from training.encoder import export
from training.encoder.backbones import build
from training.encoder.trainer import EncoderParameters
from training.packaging import release_numbers
from training.pipeline import train


def digests(release: Path) -> dict[str, str]:
    return {name: facts["sha256"] for name, facts in Manifest.read(release).files.items()}


def test_a_second_run_skips_every_stage_and_names_the_same_release(
    boutique_folder: Path, release_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing has changed, so nothing is made, and it says so."""
    assert train(options(boutique_folder, release_folder.parent)) == release_folder
    said = capsys.readouterr().err
    for stage in ("pictures", "encoder", "export", "index", "ranker", "package"):
        assert f"{stage}: skipped" in said


@pytest.mark.slow
def test_two_trainings_with_one_seed_give_the_same_digests(
    boutique_folder: Path, release_folder: Path, tmp_path: Path
) -> None:
    """Every file of the release is the same, bit for bit; only the manifest's time stamp differs."""
    again = train(options(boutique_folder, tmp_path))
    assert again is not None
    assert digests(again) == digests(release_folder)
    first, second = (json.loads((path / "manifest.json").read_text()) for path in (release_folder, again))
    first.pop("created"), second.pop("created")
    assert first == second


def test_a_changed_parameter_makes_only_what_depends_on_it(
    boutique_folder: Path, release_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another ranker leaves the encoder alone, and makes release 2."""
    releases = shutil.copytree(release_folder.parent, tmp_path / "releases")
    changed = options(boutique_folder, releases)
    path = train(replace(changed, ranker=replace(changed.ranker, factors=8)))
    assert path is not None
    assert path.name == "2"
    said = capsys.readouterr().err
    assert "encoder: skipped" in said
    assert "ranker: skipped" not in said
    assert digests(path)["encoder.onnx"] == digests(release_folder)["encoder.onnx"]


def test_a_deleted_releases_number_is_not_given_again(
    boutique_folder: Path, release_folder: Path, tmp_path: Path
) -> None:
    """Gaps are allowed, reuse is not."""
    releases = shutil.copytree(release_folder.parent, tmp_path / "releases")
    shutil.rmtree(releases / "1")
    path = train(options(boutique_folder, releases))
    assert path is not None
    assert path.name == "2"


def test_numbers_are_never_given_twice(tmp_path: Path) -> None:
    """Each call gets its own, above all that exist."""
    (tmp_path / "4").mkdir()
    assert [release_numbers.take(tmp_path) for _ in range(3)] == [5, 6, 7]


def test_one_stage_alone_needs_those_before_it(boutique_folder: Path, tmp_path: Path) -> None:
    """--only export without an encoder says what to run first; --only package without changes names the release."""
    with pytest.raises(CatalogueError, match="run --only encoder"):
        train(options(boutique_folder, tmp_path, only="export"))


@pytest.mark.slow
def test_a_killed_training_leaves_nothing_half_written_and_is_taken_up_again(
    boutique_folder: Path, tmp_path: Path
) -> None:
    """SIGKILL in the middle: no release, no finished stage that is not whole; the next run resumes and finishes."""
    arguments = ["--backbone", "convnet", "--weights", "none", "--dim", "16", "--epochs", "6", "--image-size", "64",
                 "--last-layer-steps", "100", "--factors", "8", "--sweeps", "3"]  # fmt: skip
    command = [sys.executable, "-m", "training", "train", str(boutique_folder), "--releases", str(tmp_path), *arguments]
    with subprocess.Popen(command, cwd=HOME, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 90
        while not list(tmp_path.glob(".stages/encoder-*.part/checkpoint.pt")):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
    assert not [path for path in tmp_path.iterdir() if path.name.isdigit()]
    done = subprocess.run(command, cwd=HOME, capture_output=True, text=True, check=True)
    assert "encoder: resumed after epoch" in done.stderr
    assert done.stdout.splitlines()[-1] == str(tmp_path / "1")
    prove(Recommender(Release.open(tmp_path / "1")))


def test_a_catalogue_without_pictures_still_gives_a_release(boutique_folder: Path, tmp_path: Path) -> None:
    """Interactions alone: users are served, photos are refused with the reason."""
    catalogue = tmp_path / "catalogue"
    catalogue.mkdir()
    for name in ("items.csv", "interactions.csv"):
        text = (boutique_folder / name).read_text()
        (catalogue / name).write_text(text.replace("images/", "") if name != "items.csv" else _without_pictures(text))
    path = train(options(catalogue, tmp_path / "releases"))
    assert path is not None
    recommender = Recommender(Release.open(path))
    prove(recommender)
    assert recommender.recommend([Query(user_id="00007")])[0].tier == "taste"
    with pytest.raises(BadQuery, match="without pictures: it cannot look") as refused:
        recommender.recommend([Query(image=b"x")])
    assert refused.value.field == "image"


def _without_pictures(items: str) -> str:
    lines = items.splitlines()
    return "\n".join(
        [lines[0], *(",".join([c if at != 1 else "" for at, c in enumerate(row.split(","))]) for row in lines[1:])]
    )


def test_a_catalogue_of_pictures_alone_still_gives_a_release(boutique_folder: Path, tmp_path: Path) -> None:
    """No interactions, no labels: the encoder learns from the pictures themselves, and photos are answered."""
    catalogue = tmp_path / "catalogue"
    (catalogue / "images").mkdir(parents=True)
    rows = ["item_id,image"]
    for number in range(48):
        shutil.copy(boutique_folder / "images" / f"{number:04d}.jpg", catalogue / "images")
        rows.append(f"{number},images/{number:04d}.jpg")
    (catalogue / "items.csv").write_text("\n".join(rows))
    small = EncoderParameters(backbone="convnet", weights="none", dim=8, epochs=1, batch_size=16, image_size=64)
    path = train(options(catalogue, tmp_path / "releases", encoder=small))
    assert path is not None
    photo = (catalogue / "images" / "0004.jpg").read_bytes()
    answer = Recommender(Release.open(path)).recommend([Query(image=photo, k=3)])[0]
    assert answer.tier == "visual"
    assert answer.items[0].item_id == "4"


def test_an_export_that_differs_from_torch_is_refused(tmp_path: Path) -> None:
    """The bound on the largest difference is kept, not only printed."""
    import torch

    model = build("convnet", weights="none", dim=8)
    pictures = torch.randint(0, 256, (4, 224, 224, 3), dtype=torch.uint8)
    assert export.export(model, tmp_path / "a.onnx", pictures=pictures, ingredients={"backbone": "convnet"}) <= 1e-4
    other = build("convnet", weights="none", dim=8).eval()
    with pytest.raises(ReleaseMismatch, match="differs from torch"):
        export.compare(other, tmp_path / "a.onnx", pictures)


def test_the_exported_graph_names_no_path_of_this_machine(release_folder: Path) -> None:
    """Nor the exporter's stack traces: one network gives one file."""
    graph = (release_folder / "encoder.onnx").read_bytes()
    assert b"site-packages" not in graph
    assert str(HOME).encode() not in graph


def test_the_cut_may_be_a_date_or_seconds() -> None:
    """And anything else is refused."""
    assert read_cut("2011-11-10") == read_cut("1320883200") == 1_320_883_200
    with pytest.raises(CatalogueError, match="neither a date"):
        read_cut("tomorrow-ish")


def test_the_release_knows_what_it_was_made_of(release_folder: Path) -> None:
    """Rows, parameters, data fingerprint, metrics stand in the manifest; no path of this machine does."""
    manifest = Manifest.read(release_folder)
    assert manifest.rows["items"] == manifest.rows["pictured"] == 144
    assert manifest.training["encoder"]["backbone"] == "convnet"
    assert manifest.index is not None
    assert manifest.index["recall_at_10"] == 1.0
    assert 0 < manifest.metrics["ranking"]["share_of_best_possible_ndcg_at_10"] <= 1
    text = (release_folder / "manifest.json").read_text()
    assert str(release_folder.parent) not in text
    assert str(HOME) not in text
    assert np.isfinite(manifest.index["in_catalogue"]["at"])
