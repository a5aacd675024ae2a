"""A Triton model repository: release N is version N of the model `encoder`.

A server that polls the folder reads it at any moment: a version is written under a name that is no number, which the
server passes over, and then renamed. A version that cannot be loaded makes the whole server not ready, and can end it:
a network is loaded and run once before it gets a version's name.
"""

import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import onnxruntime

from service.encoder.selection import SAME
from service.errors import ReleaseDamaged, ReleaseMismatch
from service.files import digest, write_text
from service.recommender.release import Release

MODEL, PLAN_MODEL = "encoder", "encoder_trt"
CONFIG, PLAN_CONFIG = (Path(__file__).with_name(f"{model}.pbtxt") for model in (MODEL, PLAN_MODEL))

Prove = Callable[[Path], None]


def install(release: Release, repository: Path) -> Path:
    """Put a release's encoder there as its version; does nothing where it is there already. Returns its path.

    Raises ReleaseMismatch where another network has its number, or the release has none; ReleaseDamaged where it cannot
    be run, or gives other vectors than were recorded."""
    if not release.encoders:
        raise ReleaseMismatch(
            f"{release.path} was made from a catalogue without pictures: it has no encoder to install"
        )
    return put(
        release.encoders["fp32"],
        "model.onnx",
        repository / MODEL,
        int(release.number),
        config=CONFIG.read_text(),
        prove=lambda path: require_golden(_on_the_cpu(path), release),
    )


def put(source: Path, name: str, model: Path, version: int, *, config: str, prove: Prove) -> Path:
    """Put a file there as a version of a model, with this configuration where it has none yet. Returns its path.

    prove: called with the copy before it gets the version's name; raises where no server could load it. Raises
    ReleaseMismatch where another file has the number."""
    target = model / str(version) / name
    if _is_there(target, source):
        return target
    model.mkdir(parents=True, exist_ok=True)
    # names of its own: pods that start together install the same version
    aside = Path(tempfile.mkdtemp(prefix=f".installing-{version}-", dir=model))
    try:
        aside.chmod(0o755)
        shutil.copyfile(source, aside / name)
        prove(aside / name)
        if not (model / "config.pbtxt").exists():
            write_text(model / "config.pbtxt", config)
        aside.rename(target.parent)
    except BaseException as error:
        shutil.rmtree(aside, ignore_errors=True)
        with suppress(OSError):
            model.rmdir()  # where nothing else is in it
        if isinstance(error, OSError) and _is_there(target, source):  # another pod was faster
            return target
        raise
    return target


def _is_there(target: Path, source: Path) -> bool:
    """Whether a version is installed already. Raises ReleaseMismatch where another file has its number."""
    if not target.exists():
        return False
    if digest(target) != digest(source):
        raise ReleaseMismatch(
            f"{target} is another network than {source}: a number is never given twice; package a new release, "
            "or prune the repository"
        )
    return True


def require_golden(encode: Callable[[np.ndarray], np.ndarray], release: Release) -> None:
    """Run a network once. encode: pixels (n, 224, 224, 3) uint8 -> vectors (n, dim). Raises ReleaseDamaged where it
    fails, or does not give what was recorded of the golden pictures."""
    try:
        found = encode(release.golden_pixels())
    except Exception as error:  # onnxruntime's errors, and TensorRT's, have no common class
        raise ReleaseDamaged(f"the network cannot be run, and is not installed: {error}") from error
    cosine = float(np.einsum("nd,nd->n", found, release.golden.vectors["fp32"]).min(initial=1))
    if not cosine >= SAME["fp32"]:
        raise ReleaseDamaged(
            f"the network gives other vectors than were recorded (cosine {cosine:.4f}), and is not installed"
        )


def _on_the_cpu(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    """As the backend of every server can run it."""

    def encode(pixels: np.ndarray) -> np.ndarray:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        return np.asarray(session.run(["embeddings"], {"images": pixels})[0])

    return encode
