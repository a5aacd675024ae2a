"""The Open Inference Protocol without a transport: models, their tensors, what may be asked, and what comes back.

`rest` and `grpc_server` are thin fronts over it. Errors read as Triton's do.
"""

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

import numpy as np

from service import context
from service.errors import Malformed, NotFound
from service.open_inference.tensors import DATATYPES, SentTensor, Tensor, shown_shape

SERVER = "vitrine"
EXTENSIONS = ("binary_tensor_data", "model_configuration", "model_repository", "statistics")
ANY = -1

Arrays = Mapping[str, np.ndarray]
Output = np.ndarray | Callable[[], np.ndarray]  # one that few ask for is made once it is


@dataclass(frozen=True, slots=True)
class Spec:
    """A tensor that a model takes or gives. shape: with ANY where the size is free; optional: it may be left out, and
    is not given to who names no outputs."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    optional: bool = False

    def accepts(self, shape: Sequence[int]) -> bool:
        """Whether a tensor of this shape fits."""
        return len(shape) == len(self.shape) and all(
            size >= 0 and wanted in (ANY, size) for size, wanted in zip(shape, self.shape, strict=True)
        )


@dataclass(frozen=True, slots=True)
class Ran:
    """What a model gave: the outputs by name, what they rest on, the seconds that the slowest row waited, and the
    parts that were answered otherwise than they should be."""

    outputs: Mapping[str, Output]
    tier: str
    waited: float
    degraded: Sequence[str] = ()


Run = Callable[[Arrays, float], Awaitable[Ran]]  # (inputs, seconds left) -> what it gave


@dataclass(frozen=True, slots=True)
class Model:
    """What can be asked for. largest_batch: rows that a request may have, its first dimension; batched: whether the
    first dimension of every input is that of the batch, which Triton's configuration leaves out of `dims`."""

    name: str
    inputs: tuple[Spec, ...]
    outputs: tuple[Spec, ...]
    run: Run
    largest_batch: int
    batched: bool = False


@dataclass(frozen=True, slots=True)
class InferRequest:
    """One question. outputs: names of those that are wanted; none means all that are not optional."""

    model: str
    version: str
    inputs: Sequence[SentTensor]
    outputs: Sequence[str] = ()
    id: str = ""


@dataclass(frozen=True, slots=True)
class InferResponse:
    """One answer."""

    model: str
    version: str
    outputs: list[Tensor]
    id: str = ""
    parameters: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Counts:
    """What one model has done since the service started."""

    inferences: int = 0  # rows
    executions: int = 0  # requests
    failures: int = 0
    nanoseconds: int = 0
    queue_nanoseconds: int = 0
    failure_nanoseconds: int = 0
    last_ms: int = 0  # since 1970


@dataclass(slots=True)
class Inference:
    """The models of one release; its number is the version of each.

    observe: called with the model, and what went wrong, once a request is answered."""

    models: Mapping[str, Model]
    version: str
    observe: Callable[[str, Exception | None], None] = lambda model, error: None
    counts: dict[str, Counts] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.counts = {name: Counts() for name in self.models}

    def has(self, name: str, version: str = "") -> bool:
        """Whether this model is served in this version; "" means whichever."""
        return name in self.models and version in ("", self.version)

    def model(self, name: str, version: str = "") -> Model:
        """Raises NotFound."""
        if not self.has(name, version):
            said = f"Request for unknown model: '{name[:80]}'"
            known = name in self.models
            raise NotFound(f"{said} version {version[:20]} is not found" if known else f"{said} is not found")
        return self.models[name]

    async def infer(self, request: InferRequest, *, seconds: float) -> InferResponse:
        """Answer within so many seconds. Raises NotFound, Malformed, other BadQuery, Busy."""
        model = self.model(request.model, request.version)
        counts, began = self.counts[model.name], time.perf_counter()
        call = context.current() or context.begin("")
        call.began, call.release = time.time_ns(), self.version
        try:
            wanted = _wanted(model, request)
            inputs = _checked(model, request)
            ran = await model.run(inputs, seconds)
            call.tier = ran.tier
        except Exception as error:
            counts.failures += 1
            counts.failure_nanoseconds += int((time.perf_counter() - began) * 1e9)
            self.observe(model.name, error)
            raise
        took = time.perf_counter() - began
        self.observe(model.name, None)
        counts.executions += 1
        counts.inferences += len(_made(next(iter(ran.outputs.values()))))
        counts.nanoseconds += int(took * 1e9)
        counts.queue_nanoseconds += int(ran.waited * 1e9)
        counts.last_ms = int(time.time() * 1000)
        outputs = [Tensor(spec.name, spec.datatype, _made(ran.outputs[spec.name])) for spec in wanted]
        parameters = {"degraded": ",".join(ran.degraded)} if ran.degraded else {}
        return InferResponse(model.name, self.version, outputs, request.id, parameters)

    def server_metadata(self) -> dict[str, Any]:
        """Name, version and extensions of the server."""
        return {"name": SERVER, "version": version("vitrine"), "extensions": list(EXTENSIONS)}

    def model_metadata(self, name: str, version: str = "") -> dict[str, Any]:
        """The tensors of a model. Raises NotFound."""
        model = self.model(name, version)
        described = {
            kind: [{"name": spec.name, "datatype": spec.datatype, "shape": list(spec.shape)} for spec in specs]
            for kind, specs in (("inputs", model.inputs), ("outputs", model.outputs))
        }
        return {"name": name, "versions": [self.version], "platform": SERVER, **described}

    def model_config(self, name: str, version: str = "") -> dict[str, Any]:
        """A model in the terms of Triton's configuration. Raises NotFound."""
        model = self.model(name, version)

        def described(spec: Spec) -> dict[str, Any]:
            kind = "TYPE_STRING" if spec.datatype == "BYTES" else f"TYPE_{spec.datatype}"
            return {"name": spec.name, "data_type": kind, "dims": list(spec.shape[1 if model.batched else 0 :])}

        return {
            "name": name,
            "platform": SERVER,
            "backend": SERVER,
            "version_policy": {"latest": {"num_versions": 1}},
            "max_batch_size": model.largest_batch if model.batched else 0,
            "input": [{**described(spec), "optional": spec.optional} for spec in model.inputs],
            "output": [described(spec) for spec in model.outputs],
        }

    def statistics(self, name: str = "", version: str = "") -> dict[str, Any]:
        """What one model, or each, has done since the service started. Raises NotFound."""
        names = [self.model(name, version).name] if name else list(self.models)
        return {"model_stats": [self._stats(each, self.counts[each]) for each in names]}

    def repository_index(self) -> list[dict[str, str]]:
        """Every model and its state."""
        return [{"name": name, "version": self.version, "state": "READY"} for name in self.models]

    def _stats(self, name: str, counts: Counts) -> dict[str, Any]:
        def spent(nanoseconds: int) -> dict[str, int]:
            return {"count": counts.executions, "ns": nanoseconds}

        return {
            "name": name,
            "version": self.version,
            "last_inference": counts.last_ms,
            "inference_count": counts.inferences,
            "execution_count": counts.executions,
            "inference_stats": {
                "success": spent(counts.nanoseconds),
                "fail": {"count": counts.failures, "ns": counts.failure_nanoseconds},
                "queue": spent(counts.queue_nanoseconds),
                # reading and writing tensors is the fronts' part, and not counted
                "compute_input": spent(0),
                "compute_infer": spent(counts.nanoseconds - counts.queue_nanoseconds),
                "compute_output": spent(0),
            },
        }


def _wanted(model: Model, request: InferRequest) -> list[Spec]:
    """The outputs that were asked for."""
    given = {spec.name: spec for spec in model.outputs}
    for name in request.outputs:
        if name not in given:
            raise Malformed(f"unexpected inference output '{name[:80]}' for model '{model.name}'")
    usual = [spec.name for spec in model.outputs if not spec.optional]
    return [given[name] for name in dict.fromkeys(request.outputs or usual)]


def _made(output: Output) -> np.ndarray:
    return output() if callable(output) else output


def _checked(model: Model, request: InferRequest) -> dict[str, np.ndarray]:
    """The inputs by name, each of the type and shape that the model takes."""
    specs, sent = {spec.name: spec for spec in model.inputs}, [tensor.name for tensor in request.inputs]
    for tensor in request.inputs:
        if tensor.name not in specs:
            raise Malformed(f"unexpected inference input '{tensor.name[:80]}' for model '{model.name}'")
        if sent.count(tensor.name) > 1:
            raise Malformed(f"input '{tensor.name}' already exists in request")
    missing = [spec.name for spec in model.inputs if not spec.optional and spec.name not in sent]
    if missing:
        raise Malformed(
            f"expected {len(specs)} inputs but got {len(sent)} inputs for model '{model.name}'. Got input(s) {sent}, "
            f"but missing required input(s) {missing}. Please provide all required input(s)."
        )
    return {tensor.name: _array(model, specs[tensor.name], tensor) for tensor in request.inputs}


def _array(model: Model, spec: Spec, tensor: SentTensor) -> np.ndarray:
    if tensor.datatype != spec.datatype:
        sent = tensor.datatype if tensor.datatype in DATATYPES else "<invalid>"
        raise Malformed(
            f"inference input '{spec.name}' data-type is '{sent}', but model '{model.name}' expects '{spec.datatype}'"
        )
    if not spec.accepts(tensor.shape):
        raise Malformed(
            f"unexpected shape for input '{spec.name}' for model '{model.name}'. Expected "
            f"{shown_shape(spec.shape)}, got {shown_shape(tensor.shape)}"
        )
    if spec.shape[0] == ANY and not 1 <= tensor.shape[0] <= model.largest_batch:
        raise Malformed(
            f"inference request batch-size must be <= {model.largest_batch} for '{model.name}', and at least 1; "
            f"got {tensor.shape[0]}"
        )
    return tensor.array(model.name)
