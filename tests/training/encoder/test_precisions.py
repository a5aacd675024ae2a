"""Fewer bits are kept where they give the parent's answers, and refused with figures where they do not."""

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest

from service.encoder.engines import OnnxRuntime
from service.errors import ReleaseMismatch
from service.files import digest
from service.recommender.golden import prove
from service.recommender.pipeline import Recommender
from service.recommender.release import Release
from tests.quick import options
from training.data.catalogue_reader import read
from training.encoder import precisions
from training.encoder.precisions import Judge
from training.pipeline import train


@pytest.fixture(scope="module")
def judged(release_folder: Path, boutique_folder: Path) -> tuple[Judge, np.ndarray]:
    """Pictures of the boutique to compare on, and to calibrate on."""
    vectors = np.load(release_folder / "vectors.npy")
    return precisions.pictures_for(read(boutique_folder), vectors, seed=0)


def test_the_parent_agrees_with_itself(release_folder: Path, judged: tuple[Judge, np.ndarray]) -> None:
    """All of its top 10, at cosine 1."""
    found = judged[0].judge(OnnxRuntime(release_folder / "encoder.onnx", threads=1).encode)
    assert (found.overlap_median, found.overlap_mean) == (1.0, 1.0)
    assert found.cosine_least == pytest.approx(1.0, abs=1e-5)


def test_fp16_gives_the_parents_answers(release_folder: Path, judged: tuple[Judge, np.ndarray], tmp_path: Path) -> None:
    """And names its parent."""
    path = tmp_path / "encoder.fp16.onnx"
    precisions.make_fp16(release_folder / "encoder.onnx", path)
    assert judged[0].judge(OnnxRuntime(path, threads=1).encode).overlap_median == 1.0
    properties = {entry.key: json.loads(entry.value) for entry in onnx.load(path).metadata_props}
    assert properties["parent"] == digest(release_folder / "encoder.onnx")


@pytest.mark.slow
def test_int8_calibrated_on_noise_is_refused_with_its_figures(
    release_folder: Path, judged: tuple[Judge, np.ndarray], tmp_path: Path
) -> None:
    """What real pictures reach, noise does not; nothing of it is left."""
    judge, calibration = judged
    parent, path = release_folder / "encoder.onnx", tmp_path / "encoder.int8.onnx"
    made = precisions.make_int8(parent, path, calibration=calibration, judge=judge, least_overlap=0.5)
    reached = min(each["overlap_median"] for each in made["agreement"].values())
    assert reached >= 0.5
    path.unlink()
    # noise around grey: the ranges that it calls for clip what real pictures give
    noise = np.random.default_rng(0).integers(120, 136, size=calibration.shape).astype(np.uint8)
    with pytest.raises(ReleaseMismatch, match=r"int8 is refused.*overlap 0\.\d+ at the median.*0\.98"):
        precisions.make_int8(parent, path, calibration=noise, judge=judge, least_overlap=0.98)
    assert not path.exists()


@pytest.mark.slow
def test_a_release_serves_each_of_its_precisions(boutique_folder: Path, release_folder: Path, tmp_path: Path) -> None:
    """Each proves itself on golden vectors of its own, and the manifest says how far its answers are float32's."""
    releases = Path(shutil.copytree(release_folder.parent, tmp_path / "releases"))  # the encoder need not train again
    path = train(options(boutique_folder, releases, precisions=("int8", "fp16"), least_overlap=0.3))
    assert path is not None
    release = Release.open(path)
    assert set(release.encoders) == {"fp32", "int8", "fp16"}
    assert release.manifest.encoder is not None
    for precision in ("int8", "fp16"):
        prove(Recommender(release, precision=precision))
        told = release.manifest.encoder["precisions"][precision]
        assert told["parent"] == release.manifest.encoder["fingerprint"]
        assert 0.3 <= told["whole_chain"]["overlap_mean"] <= 1
