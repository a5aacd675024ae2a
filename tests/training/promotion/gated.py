"""Releases as the gate is given them, and as somebody has changed them."""

import shutil
from pathlib import Path

from service.recommender.pipeline import Recommender
from service.recommender.release import Manifest, encoder_file, golden_file
from service.recommender.user_keys import DEFAULT_USER_KEY
from training.packaging import package
from training.promotion.policy import GateOptions, open_proven


def opened(folder: Path) -> Recommender:
    """A release, proven, as the gate is given it."""
    return open_proven(folder, GateOptions(folder.parent, user_key=DEFAULT_USER_KEY))


def resealed(release: Path) -> None:
    """A manifest that lists it as it is now."""
    package.seal(release, Manifest.read(release))


def with_int8(release: Path, folder: Path) -> Path:
    """A copy whose int8 network is its own network: it answers alike."""
    made = Path(shutil.copytree(release, folder / release.name))
    shutil.copy(made / "encoder.onnx", made / encoder_file("int8"))
    shutil.copy(made / "golden" / golden_file("fp32"), made / "golden" / golden_file("int8"))
    manifest = Manifest.read(made)
    assert manifest.encoder is not None
    manifest.encoder["precisions"] = {"int8": {}}
    package.seal(made, manifest)
    return made
