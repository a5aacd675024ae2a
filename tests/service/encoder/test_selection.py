"""Engines give the vectors of the release, and the choice between them is made by measurement."""

from pathlib import Path

import numpy as np
import pytest

from service.encoder import engines, preprocessing
from service.encoder.engines import installed, tensorrt_options
from service.encoder.selection import Candidate, available_cpus, candidates, choose
from service.errors import EncoderUnavailable
from service.recommender.release import Release
from tests.processes import FIXTURES


@pytest.fixture(scope="module")
def release() -> Release:
    """The release in the repository."""
    return Release.open(FIXTURES / "release-format-1")


@pytest.fixture(scope="module")
def golden(release: Release) -> np.ndarray:
    """Its golden pictures as pixels."""
    names = [case.picture for case in release.golden.cases if case.picture]
    return preprocessing.decode_all((release.path / "golden" / name).read_bytes() for name in names)


def test_providers_that_do_not_work_are_passed_over(release: Release, monkeypatch: pytest.MonkeyPatch) -> None:
    """Built with TensorRT and CUDA, and neither works: the CPU computes."""
    opened, real = [], engines.onnxruntime.InferenceSession

    def session(path: str, options: object, providers: list[tuple[str, dict[str, str]]]) -> object:
        opened.append(providers[0][0])
        if len(providers) > 1:
            raise RuntimeError("no CUDA-capable device is detected")
        return real(path, options, providers=providers)

    monkeypatch.setattr(engines.onnxruntime, "InferenceSession", session)
    monkeypatch.setattr(engines.onnxruntime, "get_available_providers", lambda: list(engines.PROVIDERS))
    monkeypatch.setattr(engines.onnxruntime, "preload_dlls", lambda: opened.append("libraries"))
    engine = engines.OnnxRuntime(release.encoders["fp32"], threads=1)
    assert opened == ["libraries", *engines.PROVIDERS]
    assert engine.largest_batch == engines.CPU_BATCH


def test_tensorrts_engines_are_kept_by_the_weights(tmp_path: Path) -> None:
    """One engine serves batches from 1 to 32; two networks of one shape never share one; nothing is kept unasked."""
    files = [tmp_path / name for name in ("one.onnx", "another.onnx", "one.fp16.onnx")]
    for file, weights in zip(files, (b"1", b"2", b"1"), strict=True):
        file.write_bytes(weights)
    one, other, half = (
        tensorrt_options(file, precision=precision, cache=tmp_path)
        for file, precision in zip(files, ("fp32", "fp32", "fp16"), strict=True)
    )
    assert one["trt_engine_cache_prefix"] != other["trt_engine_cache_prefix"]
    assert (one["trt_engine_cache_path"], one["trt_timing_cache_path"]) == (str(tmp_path), str(tmp_path))
    assert (one["trt_fp16_enable"], half["trt_fp16_enable"]) == ("0", "1")
    unkept = tensorrt_options(files[0], precision="fp32", cache=None)
    assert not [name for name in unkept if "cache" in name]
    assert [unkept[f"trt_profile_{name}_shapes"] for name in ("min", "max")] == [
        "images:1x224x224x3", "images:32x224x224x3",
    ]  # fmt: skip


@pytest.mark.parametrize("engine", installed())
@pytest.mark.parametrize("lanes", [1, 2])
def test_every_engine_gives_the_golden_vectors(release: Release, golden: np.ndarray, engine: str, lanes: int) -> None:
    """Whatever the engine and its threads; nothing in, nothing out."""
    encoder = Candidate(engine, "fp32", release.encoders["fp32"]).open(threads=2, lanes=lanes)
    vectors = encoder.encode(golden)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, release.golden.vectors["fp32"], atol=1e-4)
    assert encoder.encode(golden[:0]).shape == (0, encoder.dim)


def test_auto_tries_every_engine_and_says_what_it_saw(release: Release, golden: np.ndarray) -> None:
    """The fastest is taken, and the milliseconds of all are told."""
    found = candidates(release.encoders)
    chosen = choose(found, golden, release.golden.vectors, threads=2, lanes=2)
    assert set(chosen.tried) == {f"{engine} fp32" for engine in installed()}
    milliseconds = {name: float(told.removesuffix(" ms")) for name, told in chosen.tried.items()}
    assert milliseconds[str(chosen.candidate)] == min(milliseconds.values())


def test_an_engine_with_other_vectors_is_never_taken(release: Release, golden: np.ndarray) -> None:
    """However fast it is; the message says by how much it is off."""
    with pytest.raises(EncoderUnavailable, match=r"cosine -1\.0000"):
        choose(candidates(release.encoders), golden, {"fp32": -release.golden.vectors["fp32"]}, threads=1, lanes=1)


def test_what_is_not_there_cannot_be_asked_for(release: Release) -> None:
    """The message lists what is."""
    with pytest.raises(EncoderUnavailable, match="VITRINE_ENCODER=tensorflow: expected auto, onnxruntime"):
        candidates(release.encoders, engine="tensorflow")
    with pytest.raises(EncoderUnavailable, match="VITRINE_PRECISION=int8: this release has fp32"):
        candidates(release.encoders, precision="int8")


def test_threads_follow_what_this_process_may_use() -> None:
    """At least one, and never more than the machine has."""
    assert 1 <= available_cpus() <= 4096
