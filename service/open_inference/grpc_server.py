"""The Open Inference Protocol over gRPC: inference.GRPCInferenceService, grpc.health.v1, reflection."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import json_format
from google.protobuf.message import DecodeError
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from tritonclient.grpc import model_config_pb2, service_pb2, service_pb2_grpc

from service.context import GRPC, Call, begin, under
from service.errors import (
    BadQuery,
    Busy,
    CallerGone,
    DeadlineMissed,
    EncoderAway,
    Malformed,
    NotFound,
    Overloaded,
    SlowBody,
)
from service.http.middleware.api_keys import Keys
from service.http.middleware.request_body import Uploads
from service.open_inference.server import Inference, InferRequest, InferResponse
from service.open_inference.tensors import BYTES, SentTensor

SERVICE = "inference.GRPCInferenceService"
LOOK_AGAIN = 0.5  # seconds between looks for who watches health
LAST_CALLS = 0.5  # seconds in which callers are told that the server ends
AT_ONCE = 256  # calls; the batcher refuses what it cannot hold long before
ARRIVING = 8  # messages that may arrive at once: gRPC does not say how long one is before it is there
STREAMS = 4  # streaming calls at once; each may have a message on its way at any time
LEAVE_AFTER = 1.0  # seconds after which a message that is still arriving makes room for another call
MODEL_INFER, MODEL_STREAM_INFER = f"/{SERVICE}/ModelInfer", f"/{SERVICE}/ModelStreamInfer"
OPEN = (f"/{SERVICE}/ServerLive", f"/{SERVICE}/ServerReady", "/grpc.health.v1.Health/")  # no key is asked for
# field of InferTensorContents that holds a datatype's values
CONTENTS = {
    "BOOL": "bool_contents", "INT8": "int_contents", "INT16": "int_contents", "INT32": "int_contents",
    "INT64": "int64_contents", "UINT8": "uint_contents", "UINT16": "uint_contents", "UINT32": "uint_contents",
    "UINT64": "uint64_contents", "FP32": "fp32_contents", "FP64": "fp64_contents", BYTES: "bytes_contents",
}  # fmt: skip
# the most specific class first
CODES = {
    NotFound: grpc.StatusCode.NOT_FOUND,
    BadQuery: grpc.StatusCode.INVALID_ARGUMENT,
    Overloaded: grpc.StatusCode.RESOURCE_EXHAUSTED,
    DeadlineMissed: grpc.StatusCode.DEADLINE_EXCEEDED,
    SlowBody: grpc.StatusCode.DEADLINE_EXCEEDED,
    EncoderAway: grpc.StatusCode.UNAVAILABLE,
    CallerGone: grpc.StatusCode.CANCELLED,
}

logger = logging.getLogger("vitrine")


class GrpcFront:
    """A gRPC server on a port of its own, in the event loop that starts it."""

    def __init__(
        self, inference: Callable[[], Inference], *, ready: Callable[[], bool], seconds: float, max_message_bytes: int,
        uploads: Uploads, stall: float, keys: Keys, max_age: float,
    ) -> None:  # fmt: skip
        """inference: called once a request; ready: whether requests are welcome; seconds: within which each is
        answered; uploads: that messages count among; stall: seconds in which a message must have arrived; keys: that
        callers must send; max_age: seconds after which a connection is closed, once what is under way was answered:
        a client stays with one pod for as long as it keeps one."""
        self._max_age, self._grace = max_age, seconds + stall
        self._arrivals = _Arrivals(uploads, stall)
        self._ready = ready
        self._max_message_bytes, self._keys = max_message_bytes, keys
        self._servicer = _Servicer(inference, ready, seconds)
        self._server: grpc.aio.Server | None = None

    async def start(self, host: str, port: int, *, certificate: Path | None = None, key: Path | None = None) -> int:
        """Listen, with TLS where a certificate and its key (PEM files) are given. Returns the port.

        Raises OSError where the port is taken."""
        options: list[tuple[str, Any]] = [
            ("grpc.max_receive_message_length", self._max_message_bytes),
            ("grpc.max_connection_age_ms", int(self._max_age * 1000)),
            ("grpc.max_connection_age_grace_ms", int(self._grace * 1000)),
            ("grpc.so_reuseport", 0),  # a second server on the port is a mistake, and is told so
        ]
        checks = [*([_KeyCheck(self._keys)] if self._keys else []), self._arrivals]
        server = grpc.aio.server(options=options, interceptors=checks, maximum_concurrent_rpcs=AT_ONCE)
        servicer: Any = self._servicer
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(servicer, server)
        healthy = _Health(self._ready)
        health_pb2_grpc.add_HealthServicer_to_server(healthy, server)
        reflection.enable_server_reflection((SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            if certificate and key:
                pair = (key.read_bytes(), certificate.read_bytes())
                bound = server.add_secure_port(address, grpc.ssl_server_credentials([pair]))
            else:
                bound = server.add_insecure_port(address)
        except RuntimeError as error:
            raise OSError(f"gRPC cannot listen on {address}: is the port taken? Set VITRINE_GRPC_PORT") from error
        await server.start()
        self._server = server
        logger.info("gRPC on %s", address)
        return int(bound)

    async def stop(self, *, seconds: float) -> None:
        """Take no more calls; those under way have so many seconds."""
        if self._server is not None:
            # gRPC itself would cancel what comes in at the moment of its end: callers are told before
            self._servicer.ending = True
            await asyncio.sleep(LAST_CALLS)
            await self._server.stop(seconds)


class _Health(health_pb2_grpc.HealthServicer):
    """grpc.health.v1: of the server, "", and of its one service."""

    def __init__(self, ready: Callable[[], bool]) -> None:
        self._ready = ready

    async def Check(self, request: Any, context: Any) -> Any:  # noqa: N802
        if request.service not in ("", SERVICE):
            await context.abort(grpc.StatusCode.NOT_FOUND, f"there is no service {request.service[:80]!r}")
        return self._said()

    async def Watch(self, request: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802
        said = None
        while True:
            if (now := self._said()) != said:
                yield (said := now)
            await asyncio.sleep(LOOK_AGAIN)

    def _said(self) -> Any:
        serving = health_pb2.HealthCheckResponse.SERVING
        return health_pb2.HealthCheckResponse(
            status=serving if self._ready() else health_pb2.HealthCheckResponse.NOT_SERVING
        )


class _Servicer:
    """The calls, named as in the protocol."""

    def __init__(self, inference: Callable[[], Inference], ready: Callable[[], bool], seconds: float) -> None:
        self._inference, self._ready, self._seconds = inference, ready, seconds
        self.ending = False

    async def ServerLive(self, request: Any, context: Any) -> Any:  # noqa: N802
        return service_pb2.ServerLiveResponse(live=True)

    async def ServerReady(self, request: Any, context: Any) -> Any:  # noqa: N802
        return service_pb2.ServerReadyResponse(ready=self._ready())

    async def ModelReady(self, request: Any, context: Any) -> Any:  # noqa: N802
        async def ready() -> Any:
            return service_pb2.ModelReadyResponse(ready=self._inference().has(request.name, _version(request.version)))

        return await _answer(ready, context)

    async def ServerMetadata(self, request: Any, context: Any) -> Any:  # noqa: N802
        return service_pb2.ServerMetadataResponse(**self._inference().server_metadata())

    async def ModelMetadata(self, request: Any, context: Any) -> Any:  # noqa: N802
        async def described() -> Any:
            return service_pb2.ModelMetadataResponse(
                **self._inference().model_metadata(request.name, _version(request.version))
            )

        return await _answer(described, context)

    async def ModelConfig(self, request: Any, context: Any) -> Any:  # noqa: N802
        async def described() -> Any:
            config = self._inference().model_config(request.name, _version(request.version))
            return service_pb2.ModelConfigResponse(config=json_format.ParseDict(config, model_config_pb2.ModelConfig()))

        return await _answer(described, context)

    async def ModelStatistics(self, request: Any, context: Any) -> Any:  # noqa: N802
        async def counted() -> Any:
            found = self._inference().statistics(request.name, _version(request.version))
            return json_format.ParseDict(found, service_pb2.ModelStatisticsResponse())

        return await _answer(counted, context)

    async def RepositoryIndex(self, request: Any, context: Any) -> Any:  # noqa: N802
        return service_pb2.RepositoryIndexResponse(models=self._inference().repository_index())

    async def ModelInfer(self, request: Any, context: Any) -> Any:  # noqa: N802
        return await _answer(lambda: self._infer(request, context), context)

    async def ModelStreamInfer(self, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:  # noqa: N802
        async for request in requests:
            response = service_pb2.ModelStreamInferResponse()
            try:
                with under(_begun(context)):
                    response.infer_response.CopyFrom(await self._infer(request, context))
            except (BadQuery, Busy) as error:
                response.error_message = str(error)
                response.infer_response.id = request.id
            yield response

    async def _infer(self, request: Any, context: Any) -> Any:
        if self.ending:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the server is ending; ask another")
        remaining = context.time_remaining()
        seconds = self._seconds if remaining is None else min(self._seconds, remaining)
        asked = read(request)
        try:
            return written(await self._inference().infer(asked, seconds=seconds))
        except Malformed as error:
            raise Malformed(f"[request id: {request.id or '<id_unknown>'}] {error}", field=error.field) from error

    def __getattr__(self, name: str) -> Any:
        """Calls of the protocol that this server does not serve."""
        if name.startswith("_"):
            raise AttributeError(name)

        async def refuse(request: Any, context: Any) -> None:
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, f"{name} is not served")

        return refuse


def read(request: Any) -> InferRequest:
    """A ModelInferRequest -> the request. Raises Malformed."""
    raw: Sequence[bytes] = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        raise Malformed(
            f"expected {len(request.inputs)} raw input contents, one for each input of model '{request.model_name}'; "
            f"got {len(raw)}"
        )
    inputs = []
    for place, given in enumerate(request.inputs):
        field = CONTENTS.get(given.datatype, "")
        data = raw[place] if raw else getattr(given.contents, field) if field else ()
        if not raw and not given.HasField("contents"):
            raise Malformed(
                f"unable to find data for input tensor '{given.name[:80]}' for model '{request.model_name}' in request."
            )
        inputs.append(SentTensor(given.name, given.datatype, tuple(given.shape), data if raw else list(data)))
    version = _version(request.model_version)
    return InferRequest(request.model_name, version, inputs, [each.name for each in request.outputs], request.id)


def written(response: InferResponse) -> Any:
    """An answer -> ModelInferResponse."""
    message = service_pb2.ModelInferResponse(model_name=response.model, model_version=response.version, id=response.id)
    for name, value in response.parameters.items():
        message.parameters[name].string_param = value
    for tensor in response.outputs:
        message.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
        message.raw_output_contents.append(tensor.raw())
    return message


def _version(version: str) -> str:
    if version and not (version.isascii() and version.isdigit()):
        raise Malformed(
            f"failed to get model version from specified version string '{version[:20]}', "
            "version should be an integral value > 0"
        )
    return version


def _begun(context: Any) -> Call:
    """The call, in the trace that its metadata names."""
    sent = dict(context.invocation_metadata() or ())
    return begin(GRPC, str(sent.get("traceparent", "")))


def _code_of(error: BadQuery | Busy) -> grpc.StatusCode:
    """The status that clients know an error of ours by."""
    return next(code for kind, code in CODES.items() if isinstance(error, kind))


async def _answer(call: Callable[[], Awaitable[Any]], context: Any) -> Any:
    """What the call gives; an error of ours as the status that clients know."""
    try:
        with under(_begun(context)) as begun:
            return await call()
    except (BadQuery, Busy) as error:
        also = (("retry-after", "1"),) if isinstance(error, Busy) else ()
        context.set_trailing_metadata((("trace-id", begun.trace_id), *also))
        await context.abort(_code_of(error), str(error))


class _KeyCheck(grpc.aio.ServerInterceptor):
    """Asks every call for an API key, but those that probes make."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys

    async def intercept_service(self, continuation: Any, details: Any) -> Any:
        """Hand the call on, or refuse it."""
        handler = await continuation(details)
        sent = (
            (name.encode(), value.encode() if isinstance(value, str) else value)
            for name, value in details.invocation_metadata
        )
        if handler is None or details.method.startswith(OPEN) or (refused := self._keys.refuse(sent)) is None:
            return handler
        unauthenticated, exhausted = grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.RESOURCE_EXHAUSTED
        code = unauthenticated if refused[0] == HTTPStatus.UNAUTHORIZED else exhausted

        async def refuse(request: Any, context: Any) -> None:
            await context.abort(code, refused[1])

        if handler.request_streaming:
            return grpc.stream_stream_rpc_method_handler(refuse)
        return grpc.unary_unary_rpc_method_handler(refuse)


class _Arrivals(grpc.aio.ServerInterceptor):
    """Bounds the messages that arrive, and what they hold until they are answered.

    gRPC hands a message over when it is whole, so its bytes cannot be counted before: so many may arrive at once, and
    one that takes long gives way to calls that wait. A unary call is read as a stream of one message, which is the same
    on the wire, so that the wait for it can be ended."""

    def __init__(self, uploads: Uploads, stall: float) -> None:
        self._uploads, self._stall = uploads, stall
        self._arriving: dict[asyncio.Task[Any], float] = {}  # task -> when it began
        self._free = ARRIVING
        self._waiting: list[asyncio.Future[None]] = []
        self._streams = 0

    async def intercept_service(self, continuation: Any, details: Any) -> Any:
        """Put the bounds around the calls that carry tensors."""
        handler = await continuation(details)
        if handler is None:
            return handler
        if details.method == MODEL_STREAM_INFER and handler.request_streaming:
            return grpc.stream_stream_rpc_method_handler(
                partial(self._bounded_stream, handler.stream_stream),
                handler.request_deserializer, handler.response_serializer,
            )  # fmt: skip
        if details.method == MODEL_INFER and not handler.request_streaming:
            return grpc.stream_unary_rpc_method_handler(
                partial(self._bounded_call, handler.unary_unary), None, handler.response_serializer
            )
        return handler

    async def _bounded_call(self, infer: Callable[[Any, Any], Awaitable[Any]], messages: Any, context: Any) -> Any:
        try:
            message = await self._arrive(messages)
            async with self._uploads.upload() as upload:
                upload.task = None  # it is there
                self._uploads.grow(upload, len(message))
                try:
                    request = service_pb2.ModelInferRequest.FromString(message)
                except DecodeError as error:
                    raise Malformed("the message is no ModelInferRequest") from error
                del message
                return await infer(request, context)
        except (BadQuery, Busy) as error:
            await context.abort(_code_of(error), str(error))

    async def _arrive(self, messages: Any) -> bytes:
        """The one message of a call. Raises SlowBody, Overloaded, Malformed."""
        await self._take_place()
        task = asyncio.ensure_future(messages.__anext__())
        self._arriving[task] = time.monotonic()
        try:
            return bytes(await asyncio.wait_for(task, self._stall))
        except (TimeoutError, asyncio.CancelledError) as error:
            if isinstance(error, TimeoutError) or task not in self._arriving:
                raise SlowBody("the message came too slowly; send it again") from None
            raise
        except StopAsyncIteration:
            raise Malformed("the call ended without a message") from None
        finally:
            self._arriving.pop(task, None)
            self._leave_place()

    async def _take_place(self) -> None:
        """Wait until a message may arrive; who came last is first, since who waits for long may never send."""
        if self._free > 0:
            self._free -= 1
            return
        loop = asyncio.get_running_loop()
        place: asyncio.Future[None] = loop.create_future()
        self._waiting.append(place)
        self._evict()
        loop.call_later(LEAVE_AFTER, self._evict)
        try:
            await asyncio.wait_for(place, self._stall)
        except TimeoutError:
            raise Overloaded(f"{ARRIVING} messages are arriving, and no more may; send it later") from None
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():
                self._leave_place()
            raise

    def _leave_place(self) -> None:
        while self._waiting:
            if not (place := self._waiting.pop()).done():
                place.set_result(None)
                return
        self._free += 1

    def _evict(self) -> None:
        """End the message that has been arriving for longest, where others wait."""
        task, since = min(self._arriving.items(), key=lambda each: each[1], default=(None, 0.0))
        waiting = any(not place.done() for place in self._waiting)
        if task is not None and waiting and time.monotonic() - since >= LEAVE_AFTER:
            del self._arriving[task]
            task.cancel()

    async def _bounded_stream(
        self, infer: Callable[[Any, Any], Any], messages: Any, context: Any
    ) -> AsyncIterator[Any]:
        if self._streams >= STREAMS:
            await context.abort(
                grpc.StatusCode.RESOURCE_EXHAUSTED, f"{STREAMS} streams are open, and no more may; call ModelInfer"
            )
        self._streams += 1
        try:
            async for response in infer(messages, context):
                yield response
        finally:
            self._streams -= 1
