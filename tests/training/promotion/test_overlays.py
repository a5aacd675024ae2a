"""An overlay names the release that was promoted: written in one line, proposed, and agreed to."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from service.errors import VitrineError
from tests.processes import HOME
from tests.shop import Shop
from training.promotion import overlays
from training.promotion.overlays import Image
from training.promotion.registry import local

OVERLAY = """\
# what production runs
resources: [../../base]
images:
  - name: nginx
    newTag: "1.27"
  - name: vitrine
    newName: registry.example/vitrine # where it is pushed to
    newTag: "{tag}"   # the release
replicas:
  - name: vitrine
    count: 3
"""


def test_an_overlay_changes_in_one_line(tmp_path: Path) -> None:
    """Every other byte stays as it is."""
    path = tmp_path / "kustomization.yaml"
    path.write_text(OVERLAY.format(tag=6))
    assert overlays.read(path) == 6
    digest = f"sha256:{'a1' * 32}"
    image = Image.parse(f"registry.example/vitrine:7-1a2b3c4d@{digest}")
    for given, tag in ((None, "7"), (image, f"7-1a2b3c4d@{digest}"), (None, "7")):
        overlays.write(path, 7, given)
        assert path.read_text() == OVERLAY.format(tag=tag)
        assert overlays.read(path) == 7
    moved = Image.parse(f"other.example:5000/shop/vitrine:7@{digest}")
    overlays.write(path, 7, moved)
    other = OVERLAY.replace("registry.example/vitrine", "other.example:5000/shop/vitrine")
    assert path.read_text() == other.format(tag=f"7@{digest}")


@pytest.mark.parametrize(
    "text",
    [
        "vitrine:7", "vitrine@sha256:12", f"vitrine:latest@sha256:{'a1' * 32}", f"v:7@sha256:{'a1' * 31}", "",
        f"Vitrine:7@sha256:{'a1' * 32}", f"vitrine:7 @sha256:{'a1' * 32}",
    ],
)  # fmt: skip
def test_an_image_is_known_by_number_and_digest(text: str) -> None:
    """A tag alone may come to mean another."""
    with pytest.raises(VitrineError, match=rf"^--image {re.escape(text)}: expected NAME:TAG@DIGEST") as refused:
        Image.parse(text)
    assert refused.type is VitrineError


WITH_CANARY = """\
components:
  - ../../components/hpa
  # canary: - ../../components/canary
images:
  - name: vitrine
    newName: registry.example/vitrine
    newTag: "6"
  # canary: - name: vitrine-candidate
  # canary:   newName: registry.example/vitrine
  # canary:   newTag: "2" # what is tried
"""


def test_a_canary_is_written_into_an_overlay_and_taken_out(tmp_path: Path) -> None:
    """Its lines come out from behind their mark, with the image that was promoted; and go back behind it."""
    path = tmp_path / "kustomization.yaml"
    path.write_text(WITH_CANARY)
    assert overlays.read_candidate(path) is None
    digest = f"sha256:{'a1' * 32}"
    overlays.write_candidate(path, Image.parse(f"other.example/vitrine:7-1a2b3c4d@{digest}"))
    written = WITH_CANARY.replace("# canary: ", "").replace('"2"', f'"7-1a2b3c4d@{digest}"')
    written = written.replace("candidate\n    newName: registry", "candidate\n    newName: other")
    assert path.read_text() == written
    assert (overlays.read(path), overlays.read_candidate(path)) == (6, 7)
    overlays.write_candidate(path, None)
    assert overlays.read_candidate(path) is None
    assert path.read_text().count("# canary: ") == 4


NO_ENTRY = r"must say once, under images, `- name: vitrine` with a `newTag`"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", NO_ENTRY),
        ("images:\n  - name: vitrine\n", NO_ENTRY),
        (2 * OVERLAY.format(tag=1), NO_ENTRY),
        (OVERLAY.format(tag="latest"), 'expected a newTag of vitrine such as .*; got "latest"'),
        (OVERLAY.format(tag="7@sha256:12"), 'expected a newTag of vitrine such as .*; got "7@sha256:12"'),
    ],
)
def test_an_overlay_without_one_release_is_refused(tmp_path: Path, text: str, says: str) -> None:
    """None, two, or a name in its place: the message names the file, and what was expected in it."""
    path = tmp_path / "kustomization.yaml"
    path.write_text(text)
    no_canary = "must say once, under images, `- name: vitrine-candidate` with a `newTag`"
    for write, expected in ((lambda: overlays.write(path, 7), says),
                            (lambda: overlays.write_candidate(path, None), no_canary)):  # fmt: skip
        with pytest.raises(VitrineError, match=rf"^{re.escape(str(path))}:? {expected}") as refused:
            write()
        assert refused.type is VitrineError
        assert path.read_text() == text


@pytest.mark.slow
def test_a_proposal_writes_the_overlay_and_moves_nothing(shop: Shop, tmp_path: Path) -> None:
    """For a pull request: the alias moves when others have agreed."""
    overlay = tmp_path / "kustomization.yaml"
    overlay.write_text(OVERLAY.format(tag=6))
    command = [sys.executable, "-m", "training", "promote", "1", "--to", "production", "--reason", "w", "--propose"]
    command += ["--catalogue", str(shop.catalogue), "--releases", str(shop.releases)]
    alone = subprocess.run(command, cwd=HOME, capture_output=True, text=True, check=False)
    assert alone.returncode == 1
    assert "--propose needs --write-overlay" in alone.stderr
    unnamed = subprocess.run(
        [*command, "--write-overlay", str(overlay)], cwd=HOME, capture_output=True, text=True, check=False
    )
    assert unnamed.returncode == 1
    assert "nobody has said which image release 1 is in" in unnamed.stderr
    assert overlay.read_text() == OVERLAY.format(tag=6)
    digest = f"sha256:{'a1' * 32}"
    image = f"registry.example/vitrine:1-1a2b3c4d@{digest}"
    command += ["--image", image]
    subprocess.run([*command, "--write-overlay", str(overlay)], cwd=HOME, capture_output=True, check=True)
    assert overlay.read_text() == OVERLAY.format(tag=f"1-1a2b3c4d@{digest}")
    assert str(local(shop.releases).image(1)) == image
    assert local(shop.releases).aliases() == {}
    printed = subprocess.run(
        [sys.executable, "-m", "training.promotion.overlays", str(overlay)], cwd=HOME, capture_output=True
    )
    assert printed.stdout == b"1\n"
    # once it was merged: no catalogue, no second gate
    shutil.rmtree(shop.releases / ".gates")
    agreed = [sys.executable, "-m", "training", "promote", "1", "--to", "production", "--reason", "merged"]
    agreed += ["--as-proposed", "--releases", str(shop.releases)]
    subprocess.run(agreed, cwd=HOME, capture_output=True, check=True)
    assert local(shop.releases).aliases() == {"production": 1}
    again = subprocess.run(agreed, cwd=HOME, capture_output=True, text=True, check=True)
    assert "nothing moved" in again.stdout
    assert local(shop.releases).proposal(1) is None


def test_what_nobody_proposed_is_not_agreed_to(shop: Shop) -> None:
    """The gate is left out only where it has spoken."""
    agreed = [sys.executable, "-m", "training", "promote", "1", "--to", "staging", "--reason", "merged"]
    agreed += ["--as-proposed", "--releases", str(shop.releases)]
    done = subprocess.run(agreed, cwd=HOME, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "was not proposed for staging" in done.stderr


def test_the_projects_own_overlays_can_be_written() -> None:
    """What k8s/ says is what `--write-overlay` looks for."""
    for overlay in sorted((HOME / "k8s" / "overlays").glob("*/kustomization.yaml")):
        assert overlays.read(overlay) >= 1
