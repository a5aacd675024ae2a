"""The Triton model repository: release N is version N of the model `encoder`.

A server in poll mode reads the folder at any moment: a version is written under a name that is no number, which the
server passes over, and then renamed.
"""

import re
import shutil
from collections.abc import Collection
from pathlib import Path

from service.errors import ReleaseMismatch
from service.release import Manifest, digest, verify

MODEL = "encoder"
PLAN_MODEL = "encoder_trt"
PLAN_CONFIG = Path(__file__).with_name("encoder_trt.pbtxt")
CONFIG = Path(__file__).resolve().parent.parent / "model_repository" / MODEL / "config.pbtxt"


def install(release: Path, repository: Path) -> Path:
    """Put a release's encoder there as its version; does nothing where it is there already. Returns its path.

    Raises ReleaseDamaged, and ReleaseMismatch where another network has its number."""
    manifest = Manifest.read(release)
    verify(release)
    if manifest.encoder is None:
        raise ReleaseMismatch(f"{release} was made from a catalogue without pictures: it has no encoder to install")
    return put(release / "encoder.onnx", "model.onnx", repository / MODEL, manifest.release, config=CONFIG.read_text())


def put(source: Path, name: str, model: Path, version: int, *, config: str) -> Path:
    """Put a file there as a version of a model, with this configuration where it has none yet. Returns its path."""
    target = model / str(version) / name
    if target.exists():
        if digest(target) == digest(source):
            return target
        raise ReleaseMismatch(
            f"{target} is another network than {source}: a number is never given twice; package a new release, "
            "or prune the repository"
        )
    model.mkdir(parents=True, exist_ok=True)
    if not (model / "config.pbtxt").exists():
        aside = model / ".config.pbtxt.part"
        aside.write_text(config)
        aside.rename(model / "config.pbtxt")
    aside = model / f".installing-{version}"
    shutil.rmtree(aside, ignore_errors=True)  # of one that was killed
    aside.mkdir()
    shutil.copyfile(source, aside / name)
    aside.rename(target.parent)
    return target


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
