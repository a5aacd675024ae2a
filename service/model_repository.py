"""A Triton model repository: release N is version N of the model `encoder`.

A server that polls the folder reads it at any moment: a version is written under a name that is no number, which the
server passes over, and then renamed. A version that cannot be loaded makes the whole server not ready, and can end it:
a network is loaded and run once before it gets a version's name.
"""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime

from service.errors import ReleaseDamaged, ReleaseMismatch
from service.release import Release, digest

MODEL, PLAN_MODEL = "encoder", "encoder_trt"
CONFIG, PLAN_CONFIG = (Path(__file__).with_name(f"{model}.pbtxt") for model in (MODEL, PLAN_MODEL))
SAME = 0.999  # cosine with the recorded vectors of the golden pictures

Prove = Callable[[Path], None]


def install(release: Release, repository: Path) -> Path:
    """Put a release's encoder there as its version; does nothing where it is there already. Returns its path.

    Raises ReleaseMismatch where another network has its number, or the release has none; ReleaseDamaged where it cannot
    be run, or gives other vectors than were recorded."""
    if not release.encoders:
        raise ReleaseMismatch(
            f"{release.path} was made from a catalogue without pictures: it has no encoder to install"
        )
    golden, vectors = release.golden_pixels(), release.golden.vectors["fp32"]
    return put(
        release.encoders["fp32"], "model.onnx", repository / MODEL, int(release.number), config=CONFIG.read_text(),
        prove=lambda path: _prove(path, golden, vectors),
    )  # fmt: skip


def put(source: Path, name: str, model: Path, version: int, *, config: str, prove: Prove) -> Path:
    """Put a file there as a version of a model, with this configuration where it has none yet. Returns its path.

    prove: called with the copy before it gets the version's name; raises where no server could load it. Raises
    ReleaseMismatch where another file has the number."""
    target = model / str(version) / name
    if target.exists():
        if digest(target) == digest(source):
            return target
        raise ReleaseMismatch(
            f"{target} is another network than {source}: a number is never given twice; package a new release, "
            "or prune the repository"
        )
    made = not model.exists()
    model.mkdir(parents=True, exist_ok=True)
    aside = model / f".installing-{version}"
    try:
        shutil.rmtree(aside, ignore_errors=True)  # of one that was killed
        aside.mkdir()
        shutil.copyfile(source, aside / name)
        prove(aside / name)
        if not (model / "config.pbtxt").exists():
            (model / ".config.pbtxt.part").write_text(config)
            (model / ".config.pbtxt.part").rename(model / "config.pbtxt")
        aside.rename(target.parent)
    except BaseException:
        shutil.rmtree(model if made else aside, ignore_errors=True)
        raise
    return target


def _prove(path: Path, golden: np.ndarray, vectors: np.ndarray) -> None:
    """Load and run on the CPU, which every server's backend can. Raises ReleaseDamaged."""
    try:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        found = session.run(["embeddings"], {"images": golden})[0]
    except Exception as error:  # onnxruntime's errors have no common class
        raise ReleaseDamaged(f"the network cannot be run, and is not installed: {error}") from error
    cosine = float(np.einsum("nd,nd->n", found, vectors).min(initial=1))
    if not cosine >= SAME:
        raise ReleaseDamaged(
            f"the network gives other vectors than were recorded (cosine {cosine:.4f}), and is not installed"
        )
