"""The Open Inference Protocol over HTTP: /v2/..., with JSON or binary tensors, gzip and deflate both ways."""

import gzip
import zlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import orjson
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from service.errors import BadQuery, Busy, CallerGone, Malformed
from service.http.middleware.problems import Refusal, status_of
from service.open_inference.server import Inference, InferRequest, InferResponse
from service.open_inference.tensors import SentTensor

PREFIX = "/v2"
HEADER_LENGTH = "Inference-Header-Content-Length"
WORTH_COMPRESSING = 1024  # bytes
FASTEST = 1
Endpoint = Callable[[Inference, Request], Awaitable[Response]]


def refuse(status: int, detail: str) -> Response:
    """An error as clients of the protocol expect it."""
    headers = {"Retry-After": "1"} if status in (429, 503) else None
    return _json({"error": detail}, status=status, headers=headers)


REFUSAL: Refusal = (PREFIX, refuse)


def routes(inference: Callable[[], Inference], *, ready: Callable[[], bool], seconds: float) -> list[Route]:
    """inference, ready: called once a request; seconds: within which it is answered."""

    async def server_ready(core: Inference, request: Request) -> Response:
        return Response() if ready() else refuse(400, "the server is ending")

    async def infer(core: Inference, request: Request) -> Response:
        return await _infer(core, request, seconds)

    def route(path: str, endpoint: Endpoint, method: str, name: str) -> Route:
        return Route(PREFIX + path, _answered(endpoint, inference), methods=[method], name=name)

    of_model = (
        ("", _metadata, "GET", "Tensors of a model"),
        ("/ready", _model_ready, "GET", "Whether a model is served"),
        ("/config", _config, "GET", "Configuration of a model"),
        ("/stats", _statistics, "GET", "Statistics of a model"),
        ("/infer", infer, "POST", "Ask a model"),
    )
    return [
        route("", _server, "GET", "Open Inference Protocol: the server"),
        route("/health/live", _live, "GET", "Whether the server lives"),
        route("/health/ready", server_ready, "GET", "Whether the server is ready"),
        route("/models/stats", _statistics, "GET", "Statistics of all models"),
        route("/repository/index", _index, "POST", "Every model and its state"),
        *[
            route("/models/{model}" + version + suffix, endpoint, method, name)
            for suffix, endpoint, method, name in of_model
            for version in ("", "/versions/{version:int}")
        ],
    ]


def _answered(endpoint: Endpoint, inference: Callable[[], Inference]) -> Callable[[Request], Awaitable[Response]]:
    async def answered(request: Request) -> Response:
        try:
            return await endpoint(inference(), request)
        except ClientDisconnect:
            return refuse(status_of(CallerGone()), "the caller has gone")
        except (BadQuery, Busy) as error:
            return refuse(status_of(error), str(error))

    return answered


async def _live(core: Inference, request: Request) -> Response:
    return Response()


async def _model_ready(core: Inference, request: Request) -> Response:
    return Response() if core.has(*_named(request)) else refuse(400, "Model version not ready")


async def _server(core: Inference, request: Request) -> Response:
    return _json(core.server_metadata())


async def _metadata(core: Inference, request: Request) -> Response:
    return _json(core.model_metadata(*_named(request)))


async def _config(core: Inference, request: Request) -> Response:
    return _json(core.model_config(*_named(request)))


async def _statistics(core: Inference, request: Request) -> Response:
    return _json(core.statistics(*_named(request)))


async def _index(core: Inference, request: Request) -> Response:
    return _json(core.repository_index())


async def _infer(core: Inference, request: Request, seconds: float) -> Response:
    body = await request.body()
    name, version = _named(request)
    core.model(name, version)
    asked, binary = parse(body, request.headers.get(HEADER_LENGTH), model=name, version=version)
    response = await core.infer(asked, seconds=seconds)
    content, headers = serialize(response, binary)
    return _compressed(content, headers, request)


def parse(
    body: bytes, header_length: str | None, *, model: str, version: str
) -> tuple[InferRequest, Callable[[str], bool]]:
    """The body of an infer request -> the request, and whether an output (by name) is wanted in binary.

    header_length: the length of the JSON that stands before the binary tensors; None where all is JSON.
    Raises Malformed."""
    header, rest = body, memoryview(b"")
    if header_length is not None:
        if not header_length.isascii() or not header_length.isdigit() or not 0 < int(header_length) <= len(body):
            raise Malformed(
                f"inference header size should be in range (0, {len(body)}], got: {header_length[:20]}; "
                f"it is what {HEADER_LENGTH} says"
            )
        header, rest = body[: int(header_length)], memoryview(body)[int(header_length) :]
    try:
        values = orjson.loads(header)
    except orjson.JSONDecodeError as error:
        raise Malformed(f"failed to parse the request JSON buffer: {error}") from error
    if not isinstance(values, dict):
        raise Malformed(f"the request must be a JSON object; got {type(values).__name__}")
    inputs = []
    for given in _field(values, "inputs", list):
        tensor, taken = _sent(given, rest, model)
        inputs.append(tensor)
        rest = rest[taken:]
    if len(rest):
        raise Malformed(f"unexpected additional input data for model '{model}': {len(rest)} bytes")
    all_binary = _parameter(values, "binary_data_output", bool, False)
    outputs = {}
    for given in _field(values, "outputs", list, default=[]):
        name = _field(given, "name", str)
        if _parameter(given, "classification", int, 0):
            raise Malformed(f"output '{name[:80]}': classification is not supported; ask for the tensor")
        outputs[name] = _parameter(given, "binary_data", bool, all_binary)
    request = InferRequest(model, version, inputs, list(outputs), str(_field(values, "id", str, default="")))
    return request, lambda name: bool(outputs.get(name, all_binary))


def serialize(response: InferResponse, binary: Callable[[str], bool]) -> tuple[bytes, dict[str, str]]:
    """The body of an answer, and the headers that say what it is."""
    outputs, raws = [], []
    for tensor in response.outputs:
        described: dict[str, Any] = {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.shape)}
        if binary(tensor.name):
            raws.append(tensor.raw())
            described["parameters"] = {"binary_data_size": len(raws[-1])}
        else:
            described["data"] = tensor.values()
        outputs.append(described)
    said: dict[str, Any] = {"model_name": response.model, "model_version": response.version, "outputs": outputs}
    if response.id:
        said["id"] = response.id
    if response.parameters:
        said["parameters"] = response.parameters
    header = orjson.dumps(said)
    if not raws:
        return header, {"Content-Type": "application/json"}
    headers = {"Content-Type": "application/octet-stream", HEADER_LENGTH: str(len(header))}
    return b"".join((header, *raws)), headers


def _sent(given: Any, rest: memoryview, model: str) -> tuple[SentTensor, int]:
    """One input, and how many binary bytes it took."""
    name, datatype = _field(given, "name", str), _field(given, "datatype", str)
    shape = _field(given, "shape", list)
    if not all(isinstance(size, int) and not isinstance(size, bool) and 0 <= size < 2**63 for size in shape):
        raise Malformed(f"Unable to parse 'shape' of input '{name[:80]}': whole numbers from 0 on are expected")
    size = _parameter(given, "binary_data_size", int, -1)
    if size < 0:
        if "parameters" in given and "binary_data_size" in given["parameters"]:
            raise Malformed(f"Unable to parse 'binary_data_size' of input '{name[:80]}': it is negative")
        return SentTensor(name, datatype, tuple(shape), _field(given, "data", list)), 0
    if size > len(rest):
        raise Malformed(
            f"unexpected size for input '{name[:80]}', expecting {size - len(rest)} additional bytes "
            f"for model '{model}'"
        )
    return SentTensor(name, datatype, tuple(shape), rest[:size]), size


def _field(values: Any, name: str, kind: type, *, default: Any = None) -> Any:
    if not isinstance(values, dict):
        raise Malformed(f"an object with '{name}' was expected; got {type(values).__name__}")
    value = values.get(name, default)
    if value is None and name not in values:
        raise Malformed(f"Unable to parse '{name}': attempt to access non-existing object member '{name}'")
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise Malformed(f"Unable to parse '{name}': {kind.__name__} is expected; got {type(value).__name__}")
    return value


def _parameter(values: Any, name: str, kind: type, default: Any) -> Any:
    return _field(_field(values, "parameters", dict, default={}), name, kind, default=default)


def _named(request: Request) -> tuple[str, str]:
    return request.path_params.get("model", ""), str(request.path_params.get("version", ""))


def _json(value: Any, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(orjson.dumps(value), status_code=status, media_type="application/json", headers=headers)


def _compressed(content: bytes, headers: dict[str, str], request: Request) -> Response:
    accepted = request.headers.get("Accept-Encoding", "")
    if len(content) >= WORTH_COMPRESSING:
        if "gzip" in accepted:
            content, headers["Content-Encoding"] = gzip.compress(content, FASTEST, mtime=0), "gzip"
        elif "deflate" in accepted:
            content, headers["Content-Encoding"] = zlib.compress(content, FASTEST), "deflate"
    return Response(content, headers=headers)
