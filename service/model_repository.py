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
            (aside / ".config").write_text(config)
            (aside / ".config").replace(model / "config.pbtxt")
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
