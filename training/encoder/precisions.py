"""The encoder in fewer bits: int8 for CPUs, fp16 for GPUs, each kept only where it gives the parent's answers.

int8 is static quantisation in QDQ form, per channel, calibrated on catalogue pictures. How the ranges are taken from
them is chosen by measurement, and the layers that do most harm stay in float until the answers agree.
"""

import contextlib
import io
import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from onnxruntime.transformers.float16 import convert_float_to_float16

from service.encoder.engines import ENGINES, installed
from service.encoder.preprocessing import decode_all
from service.encoder.selection import available_cpus
from service.errors import ReleaseMismatch
from service.files import digest
from service.recommender.agreement import overlaps
from service.recommender.pipeline import Recommender
from service.recommender.query import Query
from training.data.catalogue import Catalogue
from training.progress import say, track

LEAST_OVERLAP = 0.98  # of the top 10 with float32's, at the median query
QUERIES = 256  # pictures that precisions are compared on
CALIBRATION = 96  # pictures that ranges are taken from
LOOKED_AT = 16  # pictures that the harm of a layer is measured on
TOP = 10
METHODS = {
    "percentile": (CalibrationMethod.Percentile, {"CalibPercentile": 99.99}),
    "entropy": (CalibrationMethod.Entropy, {}),
    "minmax": (CalibrationMethod.MinMax, {}),
}
IN_FLOAT = (0, 2, 4, 8, 16)  # the most harmful layers that stay in float, tried in turn; never more than half

Encode = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True, slots=True)
class Agreement:
    """How a precision answers beside its parent: cosine of the vectors, and the share of the parent's top 10 that is
    in its own. cosine_least is that of the worst picture."""

    overlap_median: float
    overlap_mean: float
    cosine_median: float
    cosine_least: float

    def __str__(self) -> str:
        return (
            f"top-{TOP} overlap {self.overlap_median:.3f} at the median query, {self.overlap_mean:.3f} on average; "
            f"cosine {self.cosine_median:.5f} at the median, {self.cosine_least:.5f} at least"
        )


@dataclass(frozen=True, slots=True)
class Judge:
    """Compares with the parent on pictures of the catalogue. pixels: (n, 224, 224, 3) uint8; own: (n,), which row of
    `vectors` each of them shows; vectors: (m, dim) float32, those of the parent."""

    pixels: np.ndarray
    own: np.ndarray
    vectors: np.ndarray

    def judge(self, encode: Encode) -> Agreement:
        """Encode the pictures and look for their nearest among the catalogue's, each but itself."""
        expected = self.vectors[self.own]
        found = np.concatenate([encode(self.pixels[at : at + 8]) for at in range(0, len(self.pixels), 8)])
        overlap = overlaps(self._nearest(expected), self._nearest(found))
        cosines = np.einsum("nd,nd->n", found, expected)
        return Agreement(
            float(np.median(overlap)), float(overlap.mean()), float(np.median(cosines)), float(cosines.min())
        )

    def _nearest(self, queries: np.ndarray) -> np.ndarray:
        cosines = queries @ self.vectors.T
        cosines[np.arange(len(queries)), self.own] = -np.inf
        return np.argpartition(-cosines, min(TOP, cosines.shape[1] - 1), axis=1)[:, :TOP]


def pictures_for(catalogue: Catalogue, vectors: np.ndarray, *, seed: int) -> tuple[Judge, np.ndarray]:
    """Pictures of the catalogue to compare on, and others to calibrate on: (n, 224, 224, 3) uint8. vectors: (items,
    dim) of the parent, NaN without a picture."""
    rows = np.random.default_rng(seed).permutation(catalogue.pictured())
    queries, others = rows[:QUERIES], rows[QUERIES:][:CALIBRATION]
    if not len(others):  # a small catalogue has no others
        others = queries[:CALIBRATION]
    pixels, calibration = (decode_all(catalogue.picture(row) for row in part) for part in (queries, others))
    pictured = np.flatnonzero(~np.isnan(vectors[:, 0]))
    return Judge(pixels, np.searchsorted(pictured, queries), vectors[pictured]), calibration


def chain_overlaps(own: Recommender, other: Recommender, queries: Sequence[Query]) -> np.ndarray:
    """Ask both the same, each query by itself: the share of `own`'s final items that `other` gives, (n,)."""
    return overlaps(*([answered(each, query) for query in queries] for each in (own, other)))


def answered(recommender: Recommender, query: Query) -> list[str]:
    """The items of an answer, best first."""
    return [item.item_id for item in recommender.recommend([query])[0].items]


def make(
    parent: Path,
    path: Path,
    precision: str,
    *,
    catalogue: Catalogue,
    vectors: np.ndarray,
    seed: int,
    least_overlap: float,
) -> dict[str, Any]:
    """Write `path`, the parent in fp16 or int8, and return how it was made.

    vectors: (items, dim) of the parent, NaN without a picture. Raises ReleaseMismatch."""
    if precision == "fp16":
        make_fp16(parent, path)
        return {}
    judge, calibration = pictures_for(catalogue, vectors, seed=seed)
    return make_int8(parent, path, calibration=calibration, judge=judge, least_overlap=least_overlap)


def make_fp16(parent: Path, path: Path) -> None:
    """Write `path`, the parent in half precision; pixels and vectors keep their types."""
    model = convert_float_to_float16(onnx.load(parent), keep_io_types=True)
    _save(model, path, parent, {"precision": "fp16"})


def make_int8(
    parent: Path, path: Path, *, calibration: np.ndarray, judge: Judge, least_overlap: float = LEAST_OVERLAP
) -> dict[str, Any]:
    """Write `path`, the parent in int8, and return how it was made and how it agrees in each engine.

    calibration: (n, 224, 224, 3) uint8, pictures of the catalogue; the judge's are others.
    Raises ReleaseMismatch, with the figures of the best try, where no try agrees with the parent."""
    with tempfile.TemporaryDirectory() as folder:
        quantiser = Quantiser(parent, Path(folder), calibration)
        model, facts = _search(quantiser, judge, least_overlap)
    _save(model, path, parent, {"precision": "int8", **facts})
    return facts


def _search(quantiser: "Quantiser", judge: Judge, least_overlap: float) -> tuple[onnx.ModelProto, dict[str, Any]]:
    """The best way to take the ranges, then as few layers in float as it takes."""
    by_method = {name: judge.judge(quantiser.encoder(name, [])) for name in METHODS}
    method = max(by_method, key=lambda name: (by_method[name].overlap_mean, by_method[name].cosine_median))
    say("int8: " + "; ".join(f"{name} {found.overlap_mean:.3f}" for name, found in by_method.items()) + f": {method}")
    harmful = quantiser.by_harm(method, judge)
    best: tuple[float, str] = (-1.0, "")
    for count in (count for count in IN_FLOAT if count <= len(harmful) // 2):
        layers = harmful[:count]
        path = quantiser.write(method, layers)
        found = {name: judge.judge(ENGINES[name](path, threads=available_cpus()).encode) for name in installed()}
        worst = min(found.values(), key=lambda each: (each.overlap_median, each.overlap_mean))
        say(f"int8, {len(layers)} layers in float: {worst}")
        if worst.overlap_median >= least_overlap:
            agreement = {name: asdict(each) for name, each in found.items()}
            return onnx.load(path), {"calibration": method, "float_layers": layers, "agreement": agreement}
        best = max(best, (worst.overlap_mean, f"{len(layers)} layers in float, {method}: {worst}"))
    raise refusal("int8", best[1], least_overlap)


def refusal(precision: str, figures: str, least_overlap: float) -> ReleaseMismatch:
    """The error for a precision that answers otherwise than its parent."""
    return ReleaseMismatch(
        f"{precision} is refused: {figures}; at least {least_overlap:g} at the median query is asked. "
        f"Leave --precision {precision} out, or accept other answers with --least-overlap"
    )


class Quantiser:
    """One network, its calibration, and the layers of it that are quantised."""

    def __init__(self, parent: Path, folder: Path, calibration: np.ndarray) -> None:
        """folder: for what is tried, and for the ranges, which are taken once for each method."""
        self._folder, self._calibration = folder, calibration
        self._prepared = folder / "prepared.onnx"
        quant_pre_process(str(parent), str(self._prepared), skip_symbolic_shape=True)
        nodes = onnx.load(self._prepared).graph.node
        self.layers = [node.name for node in nodes if node.op_type in ("Conv", "Gemm", "MatMul")]

    def write(self, method: str, in_float: Sequence[str]) -> Path:
        """Quantise all layers but these."""
        calibrate, extra = METHODS[method]
        path = self._folder / "int8.onnx"
        with contextlib.redirect_stdout(io.StringIO()):  # it prints how far it is
            quantize_static(
                str(self._prepared),
                str(path),
                _Pictures(self._calibration),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                calibrate_method=calibrate,
                extra_options=dict(extra),
                nodes_to_exclude=list(in_float),
                calibration_cache_path=str(self._folder / f"{method}.json"),
            )
        return path

    def encoder(self, method: str, in_float: Sequence[str]) -> Encode:
        """What the quantised network gives; in OpenVINO where that is installed, since it would serve it."""
        return ENGINES[installed()[-1]](self.write(method, in_float), threads=available_cpus()).encode

    def by_harm(self, method: str, judge: Judge) -> list[str]:
        """The layers, the one first whose quantisation alone moves the vectors most."""
        pixels, expected = judge.pixels[:LOOKED_AT], judge.vectors[judge.own[:LOOKED_AT]]
        kept = {}
        for layer in track(self.layers, "measuring each layer in int8"):
            encode = self.encoder(method, [other for other in self.layers if other != layer])
            kept[layer] = float(np.einsum("nd,nd->n", encode(pixels), expected).mean())
        return sorted(self.layers, key=lambda layer: kept[layer])


class _Pictures(CalibrationDataReader):
    """Hands the calibration its pictures, one by one."""

    def __init__(self, pixels: np.ndarray) -> None:
        self._left = iter(pixels)

    def get_next(self) -> dict[str, np.ndarray] | None:
        """The next feed, or None at the end."""
        picture = next(self._left, None)
        return None if picture is None else {"images": picture[None]}


def _save(model: onnx.ModelProto, path: Path, parent: Path, facts: dict[str, object]) -> None:
    """Write it with the parent's fingerprint in its metadata, so that it can never serve beside another parent."""
    properties = {"parent": digest(parent), **facts}
    onnx.helper.set_model_props(model, {name: json.dumps(value) for name, value in sorted(properties.items())})
    path.write_bytes(model.SerializeToString(deterministic=True))
