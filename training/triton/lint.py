"""Checks of a Triton model repository: what the server would refuse, and what only a server with a GPU would.

A server on a CPU passes over the accelerator block, whatever it says; it loads a version policy that names a version
that is not there; it dies of a warm-up that is larger than a batch, and may die of a version that it cannot load. None
of that should be met in production first. What is known of the backends is from their sources (onnxruntime_backend,
src/onnxruntime.cc; tensorrt_backend, src/).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from service.serving.model_repository import MODEL
from training.encoder.export import WEIGHTS, named_after_weights
from training.triton.repository import versions

FILES = {"onnxruntime": "model.onnx", "tensorrt": "model.plan"}
FREE = -1
ACCELERATORS = {"gpu_execution_accelerator": ("tensorrt", "cuda"), "cpu_execution_accelerator": ("openvino",)}
# what the onnxruntime backend reads of the accelerator `tensorrt`
FLAG, NUMBER, TEXT = ("true", "false", "1", "0"), None, ()
TENSORRT: dict[str, tuple[str, ...] | None] = {
    "precision_mode": ("FP32", "FP16", "BF16", "INT8"),
    **dict.fromkeys(
        ("trt_engine_cache_path", "trt_engine_cache_prefix", "trt_timing_cache_path", "int8_calibration_table_name",
         "trt_profile_min_shapes", "trt_profile_max_shapes", "trt_profile_opt_shapes", "trt_tactic_sources",
         "trt_extra_plugin_lib_paths", "trt_ep_context_file_path"), TEXT
    ),
    **dict.fromkeys(
        ("max_workspace_size_bytes", "trt_max_partition_iterations", "trt_min_subgraph_size", "trt_dla_core",
         "trt_builder_optimization_level", "trt_auxiliary_streams", "trt_ep_context_embed_mode"), NUMBER
    ),
    **dict.fromkeys(
        ("trt_engine_cache_enable", "trt_timing_cache_enable", "trt_dla_enable", "trt_dump_subgraphs",
         "trt_force_sequential_engine_build", "trt_context_memory_sharing_enable", "trt_layer_norm_fp32_fallback",
         "trt_build_heuristics_enable", "trt_sparsity_enable", "int8_use_native_calibration_table",
         "trt_force_timing_cache", "trt_detailed_build_log", "trt_cuda_graph_enable", "trt_dump_ep_context_model"), FLAG
    ),
}  # fmt: skip
FREELY = "; leave the entry out, and each version completes its own"
PROFILES = ("trt_profile_min_shapes", "trt_profile_opt_shapes", "trt_profile_max_shapes")
# ... and of a model's `parameters`; others are passed over in silence
PARAMETERS = {
    "onnxruntime": {
        "intra_op_thread_count", "inter_op_thread_count", "execution_mode", "enable_mem_arena", "enable_mem_pattern",
        "memory.enable_memory_arena_shrinkage", "session.use_device_allocator_for_initializers",
        "share_session_between_instances", "cudnn_conv_algo_search", "gpu_mem_limit", "arena_extend_strategy",
        "do_copy_in_default_stream",
    },
    "tensorrt": {"execution_context_allocation_strategy"},
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Finding:
    """Something wrong. path: of the file or folder that it is in."""

    path: Path
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}"


def lint(repository: Path, *, server_cache: bool = False) -> list[Finding]:
    """Everything wrong with a repository. server_cache: whether the server is started with a response cache."""
    folders = [path for path in sorted(repository.glob("*")) if path.is_dir() and not path.name.startswith(".")]
    if not folders:
        return [Finding(repository, "there is no model in it")]
    return [found for folder in folders for found in _lint_model(folder, server_cache)]


def _lint_model(folder: Path, server_cache: bool) -> Iterator[Finding]:
    path = folder / "config.pbtxt"
    if not path.exists():
        yield Finding(folder, "config.pbtxt is missing")
        return
    try:
        config = text_format.Parse(path.read_text(), model_config_pb2.ModelConfig())
    except text_format.ParseError as error:
        yield Finding(path, f"not a model configuration: {error}")
        return
    said: Iterator[str]
    for said in (
        _identity(config, folder),
        _policy(config, folder),
        _batching(config, server_cache),
        _accelerators(config),
        _warmups(config),
    ):
        for message in said:
            yield Finding(path, message)
    for version in versions(folder):
        yield from _lint_version(config, folder / str(version))


def _identity(config: Any, folder: Path) -> Iterator[str]:
    if config.name != folder.name:
        yield f"name is {config.name!r}, and the folder {folder.name!r}"
    if config.backend not in FILES:
        yield f"backend is {config.backend!r}; expected {' or '.join(FILES)}"
    for group in config.instance_group:
        if group.kind != group.KIND_AUTO:
            kind = model_config_pb2.ModelInstanceGroup.Kind.Name(group.kind)
            yield f"instance_group has kind {kind}: leave it out, and one configuration serves CPUs and GPUs"
    for name in sorted(set(config.parameters) - PARAMETERS.get(config.backend, set(config.parameters))):
        yield f"the backend {config.backend} reads no parameter {name!r}: it would be passed over in silence"


def _policy(config: Any, folder: Path) -> Iterator[str]:
    found, which = versions(folder), config.version_policy.WhichOneof("policy_choice")
    if not found:
        yield "there is no version of it: a model without one makes the whole server not ready"
    if which == "specific":
        if absent := sorted(set(config.version_policy.specific.versions) - set(found)):
            yield f"version_policy names versions that are not there: {absent}"
    elif which != "all":
        yield "version_policy is not `all`: the server would unload the version that production is pinned to"


def _batching(config: Any, server_cache: bool) -> Iterator[str]:
    if any(size > config.max_batch_size for size in config.dynamic_batching.preferred_batch_size):
        yield f"a preferred_batch_size is above max_batch_size {config.max_batch_size}"
    policy = config.dynamic_batching.default_queue_policy
    if config.HasField("dynamic_batching") and not policy.default_timeout_microseconds:
        yield "dynamic_batching has no default_timeout_microseconds: late work is done for nobody"
    if config.response_cache.enable and not server_cache:
        yield "response_cache is on, which a server without --cache-config refuses; --server-cache says that it has one"


def _accelerators(config: Any) -> Iterator[str]:
    for kind, names in ACCELERATORS.items():
        for accelerator in getattr(config.optimization.execution_accelerators, kind):
            if accelerator.name not in names:
                yield f"{kind} {accelerator.name!r}: expected {' or '.join(names)}"
            elif accelerator.name == "tensorrt":
                for key, value in sorted(accelerator.parameters.items()):
                    yield from _tensorrt_parameter(key, value)
                if len(said := [key for key in PROFILES if key in accelerator.parameters]) not in (0, len(PROFILES)):
                    yield f"tensorrt's shapes are profiled by all of {', '.join(PROFILES)}, or none; got {said}"


def _tensorrt_parameter(key: str, value: str) -> Iterator[str]:
    if key not in TENSORRT:
        near = [name for name in TENSORRT if name.replace("_", "").lower() == key.replace("_", "").lower()]
        yield f"the accelerator tensorrt has no parameter {key!r}{f'; did you mean {near[0]!r}?' if near else ''}"
        return
    allowed = TENSORRT[key]
    if allowed is NUMBER:
        if not value.removeprefix("-").isdigit():
            yield f"tensorrt's {key} must be a whole number; got {value!r}"
    elif allowed and value not in allowed:
        yield f"tensorrt's {key} must be {', '.join(allowed)}; got {value!r}"


def _warmups(config: Any) -> Iterator[str]:
    shapes = {tensor.name: (tensor.data_type, list(tensor.dims)) for tensor in config.input}
    for warmup in config.model_warmup:
        if warmup.batch_size > max(1, config.max_batch_size):
            yield (
                f"model_warmup {warmup.name!r} has batch_size {warmup.batch_size}, above max_batch_size "
                f"{config.max_batch_size}: it can end the server"
            )
        if sorted(warmup.inputs) != sorted(shapes):
            yield f"model_warmup {warmup.name!r} has inputs {sorted(warmup.inputs)}; the model takes {sorted(shapes)}"
        for name, sent in warmup.inputs.items():
            if name in shapes and (sent.data_type, list(sent.dims)) != shapes[name]:
                yield f"model_warmup {warmup.name!r}: {name} has another type or shape than the model's"


def _lint_version(config: Any, folder: Path) -> Iterator[Finding]:
    file = folder / FILES.get(config.backend, "model.onnx")
    if not file.exists():
        yield Finding(folder, f"{file.name} is missing")
    elif not file.stat().st_size:
        yield Finding(file, "it is empty: no server can load it")
    elif file.suffix == ".onnx":
        for message in _graph(config, file):
            yield Finding(file, message)


def _graph(config: Any, file: Path) -> Iterator[str]:
    """Tensors of the graph against those of the configuration, and what tells one network from another."""
    try:
        model = onnx.load(file, load_external_data=False)
    except Exception as error:  # protobuf's errors have no common class
        yield f"not an ONNX model ({error}): no server can load it, and one may die of it"
        return
    try:
        onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    except Exception as error:  # nor have onnxruntime's
        yield f"onnxruntime cannot load it ({error}): no server can, and one may die of it"
        return
    for kind, tensors, values in (
        ("input", config.input, model.graph.input),
        ("output", config.output, model.graph.output),
    ):
        graph = {value.name: value.type.tensor_type for value in values}
        for tensor in tensors:
            if tensor.name not in graph:
                yield f"the graph has no {kind} {tensor.name!r}; it has {', '.join(graph)}"
                continue
            expected = model_config_pb2.DataType.Name(tensor.data_type).removeprefix("TYPE_").replace("FP32", "FLOAT")
            if (got := onnx.TensorProto.DataType.Name(graph[tensor.name].elem_type)) != expected:
                yield f"{kind} {tensor.name!r} is {got} in the graph, and {expected} in config.pbtxt"
            dims = [dim.dim_value or FREE for dim in graph[tensor.name].shape.dim]
            wanted = [FREE] * (config.max_batch_size > 0) + list(tensor.dims)
            if dims != wanted:
                yield (
                    f"tensor {tensor.name!r}: the model expects {len(dims)} dimensions (shape {dims}) but the model "
                    f"configuration specifies {len(wanted)} dimensions (complete shape {wanted}); a server refuses "
                    f"what is not exactly the same{FREELY if FREE in tensor.dims else ''}"
                )
    cached = any(
        accelerator.parameters.get("trt_engine_cache_enable") in ("true", "1")
        for accelerator in config.optimization.execution_accelerators.gpu_execution_accelerator
    )
    if config.name == MODEL and cached and not named_after_weights(model):
        yield (
            f"TensorRT's engines are cached by the names of tensors, and none here begins with {WEIGHTS!r}: an old "
            "engine could answer for new weights; export the encoder anew"
        )
