"""encoder.onnx -> a TensorRT plan, compared with it on real pictures, and only then installed for Triton.

A plan belongs to one network, one kind of GPU, one version of TensorRT and one precision; its name says all four, so
that none is taken for another. Building and running one needs a GPU: `Toolkit` is all that touches one.
"""

import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from service.encoder.engines import BATCHES, shape_of
from service.errors import VitrineError
from service.files import digest
from service.recommender.pipeline import Recommender
from service.recommender.query import Query
from service.recommender.release import Release
from service.serving.model_repository import PLAN_CONFIG, PLAN_MODEL, put, require_golden
from training.data.catalogue import Catalogue
from training.encoder.export import with_one_output
from training.encoder.precisions import QUERIES, TOP, chain_overlaps, pictures_for, refusal
from training.progress import say, track

PRECISIONS = ("fp16", "fp32")

Encode = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True, slots=True)
class Toolkit:
    """The GPU and the TensorRT of this machine. build: writes the plan of an ONNX file in a precision;
    open: a plan -> pixels to vectors."""

    capability: str  # such as 9.0
    version: str
    build: Callable[[Path, Path, str], None]
    open: Callable[[Path], Encode]


@dataclass(slots=True)
class _Plan:
    """An encoder that runs a plan."""

    dim: int
    run: Encode
    largest_batch: int = BATCHES["max"]
    degraded: str = ""

    def encode(self, pixels: np.ndarray) -> np.ndarray:
        """pixels: (n, 224, 224, 3) uint8 -> (n, dim) float32."""
        return self.run(pixels)


def plan_name(encoder: Path, toolkit: Toolkit, precision: str) -> str:
    """encoder-<digest of the network>-sm90-trt10.7.0-fp16.plan"""
    network = digest(encoder)[:16]
    return f"encoder-{network}-sm{toolkit.capability.replace('.', '')}-trt{toolkit.version}-{precision}.plan"


def export(
    release: Path,
    catalogue: Catalogue,
    repository: Path,
    *,
    plans: Path,
    toolkit: Toolkit,
    precision: str = "fp16",
    least_overlap: float,
    seed: int = 0,
    user_key: str,
) -> dict[str, Any]:
    """Build the plan of a release's encoder (or take it from `plans`, where it was built before), compare, install it
    as `encoder_trt`. Returns what was found and where it lies.

    Raises ReleaseMismatch, with the figures, where the plan answers otherwise; it is then removed."""
    opened = Release.open(release)
    if opened.index is None:
        raise VitrineError(f"{release} was made from a catalogue without pictures: it has no encoder")
    encoder = opened.encoders["fp32"]
    plans.mkdir(parents=True, exist_ok=True)
    plan = plans / plan_name(encoder, toolkit, precision)
    if not plan.exists():
        say(f"building {plan.name}; this takes minutes")
        with tempfile.TemporaryDirectory(dir=plans) as aside:
            built, network = Path(aside) / plan.name, Path(aside) / "encoder.onnx"
            network.write_bytes(with_one_output(onnx.load(encoder)).SerializeToString(deterministic=True))
            toolkit.build(network, built, precision)
            built.replace(plan)
    try:
        figures = _compare(opened, catalogue, toolkit.open(plan), precision, least_overlap, seed, user_key)
    except VitrineError:
        plan.unlink()
        raise
    installed = put(
        plan,
        "model.plan",
        repository / PLAN_MODEL,
        opened.manifest.release,
        config=PLAN_CONFIG.read_text(),
        prove=lambda copy: require_golden(toolkit.open(copy), opened),
    )
    return {"plan": str(plan), "installed": str(installed), **figures}


def _compare(
    release: Release,
    catalogue: Catalogue,
    encode: Encode,
    precision: str,
    least_overlap: float,
    seed: int,
    user_key: str,
) -> dict[str, Any]:
    """Vectors, and the final top 10 of the whole chain, beside the ONNX model's. Raises ReleaseMismatch."""
    vectors = np.load(release.path / "vectors.npy", mmap_mode="r")
    judge, _ = pictures_for(catalogue, np.asarray(vectors), seed=seed)
    agreement = judge.judge(encode)
    own = Recommender(release, user_key=user_key)
    other = Recommender(release, encoder=_Plan(vectors.shape[1], encode), user_key=user_key)
    rows = np.random.default_rng(seed).permutation(catalogue.pictured())[:QUERIES]
    queries = [Query(image=catalogue.picture(row), k=TOP) for row in track(list(rows), "asking both")]
    final = chain_overlaps(own, other, queries)
    say(f"TensorRT {precision}: {agreement}; final top {TOP} overlap {np.median(final):.3f} at the median query")
    if min(agreement.overlap_median, float(np.median(final))) < least_overlap:
        raise refusal(f"TensorRT {precision}", f"{agreement}; final top {TOP}: {np.median(final):.3f}", least_overlap)
    return {**asdict(agreement), "final_overlap_median": float(np.median(final)), "final_overlap_mean": final.mean()}


def find_toolkit() -> Toolkit:
    """What is installed here: TensorRT's Python API, whose builder is used where trtexec is not on PATH.

    Raises VitrineError where there is none, or no GPU."""
    try:
        import tensorrt
        import torch
    except ImportError as error:
        raise VitrineError(
            f"TensorRT is not installed here ({error}): run this on a machine with the GPU that will serve, in an "
            "environment with the package tensorrt, such as NVIDIA's container of it"
        ) from error
    if not torch.cuda.is_available():
        raise VitrineError("there is no GPU here, and a plan is built on the kind of GPU that will serve it")
    major, minor = torch.cuda.get_device_capability()
    return Toolkit(f"{major}.{minor}", tensorrt.__version__, build_plan, open_plan)


def build_plan(encoder: Path, plan: Path, precision: str) -> None:
    """Build with trtexec where it is on PATH, else with the Python API. Raises VitrineError with what it said."""
    if (program := shutil.which("trtexec")) is not None:
        done = subprocess.run(trtexec(program, encoder, plan, precision), capture_output=True, text=True, check=False)
        if done.returncode:
            raise VitrineError(f"trtexec failed with {done.returncode}: {(done.stdout + done.stderr)[-2000:]}")
        return
    import tensorrt

    log = tensorrt.Logger(tensorrt.Logger.WARNING)
    builder = tensorrt.Builder(log)
    network = builder.create_network(0)
    parser = tensorrt.OnnxParser(network, log)
    if not parser.parse(encoder.read_bytes()):
        raise VitrineError(f"TensorRT cannot read {encoder}: {[parser.get_error(i) for i in range(parser.num_errors)]}")
    config, profile = builder.create_builder_config(), builder.create_optimization_profile()
    profile.set_shape("images", *[(batch, 224, 224, 3) for batch in BATCHES.values()])  # least, usual, most
    config.add_optimization_profile(profile)
    if precision == "fp16":
        config.set_flag(tensorrt.BuilderFlag.FP16)
    built = builder.build_serialized_network(network, config)
    if built is None:
        raise VitrineError("TensorRT could not build the plan; its log above says why")
    plan.write_bytes(built)


def trtexec(program: str, encoder: Path, plan: Path, precision: str) -> list[str]:
    """The command that builds a plan."""
    command = [program, f"--onnx={encoder}", f"--saveEngine={plan}", "--skipInference"]
    command += [f"--{name}Shapes={shape_of(batch)}" for name, batch in BATCHES.items()]
    return [*command, "--fp16"] if precision == "fp16" else command


def open_plan(plan: Path) -> Encode:
    """Load a plan on the GPU; torch holds the memory."""
    import tensorrt
    import torch

    runtime = tensorrt.Runtime(tensorrt.Logger(tensorrt.Logger.WARNING))
    engine = runtime.deserialize_cuda_engine(plan.read_bytes())
    context = engine.create_execution_context()
    dim = engine.get_tensor_shape("embeddings")[1]

    def encode(pixels: np.ndarray) -> np.ndarray:
        images = torch.from_numpy(np.ascontiguousarray(pixels)).cuda()
        context.set_input_shape("images", tuple(images.shape))
        context.set_tensor_address("images", images.data_ptr())
        held = []
        for place in range(engine.num_io_tensors):
            name = engine.get_tensor_name(place)
            if engine.get_tensor_mode(name) == tensorrt.TensorIOMode.OUTPUT:
                held.append((name, torch.empty((len(pixels), dim), dtype=torch.float32, device="cuda")))
                context.set_tensor_address(name, held[-1][1].data_ptr())
        stream = torch.cuda.current_stream()
        context.execute_async_v3(stream.cuda_stream)
        stream.synchronize()
        return next(tensor for name, tensor in held if name == "embeddings").cpu().numpy()

    return encode
