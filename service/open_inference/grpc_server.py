"""The Open Inference Protocol over gRPC: inference.GRPCInferenceService, grpc.health.v1, reflection."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import json_format
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from tritonclient.grpc import model_config_pb2, service_pb2, service_pb2_grpc

from service.context import GRPC, RequestContext, begin, under
from service.errors import BadQuery, Busy, Malformed
from service.http.middleware.api_keys import Keys
from service.http.middleware.request_body import Uploads
from service.open_inference.grpc_interceptors import AT_ONCE, LOOK_AGAIN, Arrivals, KeyCheck
from service.open_inference.grpc_messages import SERVICE, checked_version, code_of, read, written
from service.open_inference.server import Inference

LAST_CALLS = 0.5  # seconds in which callers are told that the server ends
logger = logging.getLogger("vitrine")


class GrpcFront:
    """A gRPC server on a port of its own, in the event loop that starts it."""

    def __init__(
        self,
        inference: Callable[[], Inference],
        *,
        ready: Callable[[], bool],
        seconds: float,
        max_message_bytes: int,
        uploads: Uploads,
        stall: float,
        keys: Keys,
        max_age: float,
    ) -> None:
        """inference: called once a request; ready: whether requests are welcome; seconds: within which each is
        answered; uploads: that messages count among; stall: seconds in which a message must have arrived; keys: that
        callers must send; max_age: seconds after which a connection is closed, once what is under way was answered:
        a client stays with one pod for as long as it keeps one."""
        self._max_age, self._grace = max_age, seconds + stall
        self._arrivals = Arrivals(uploads, stall)
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
        checks = [*([KeyCheck(self._keys)] if self._keys else []), self._arrivals]
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
            return service_pb2.ModelReadyResponse(
                ready=self._inference().has(request.name, checked_version(request.version))
            )

        return await _answer(ready, context)

    async def ServerMetadata(self, request: Any, context: Any) -> Any:  # noqa: N802
        return service_pb2.ServerMetadataResponse(**self._inference().server_metadata())

    async def ModelMetadata(self, request: Any, context: Any) -> Any:  # noqa: N802
        async def described() -> Any:
            return service_pb2.ModelMetadataResponse(
                **self._inference().model_metadata(request.name, checked_version(request.version))
            )

        return await _answer(described, context)

    async def ModelConfig(self, request: Any, context: Any) -> Any:  # noqa: N802
        async def described() -> Any:
            config = self._inference().model_config(request.name, checked_version(request.version))
            return service_pb2.ModelConfigResponse(config=json_format.ParseDict(config, model_config_pb2.ModelConfig()))

        return await _answer(described, context)

    async def ModelStatistics(self, request: Any, context: Any) -> Any:  # noqa: N802
        async def counted() -> Any:
            found = self._inference().statistics(request.name, checked_version(request.version))
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


def _begun(context: Any) -> RequestContext:
    """The call, in the trace that its metadata names."""
    sent = dict(context.invocation_metadata() or ())
    return begin(GRPC, str(sent.get("traceparent", "")), str(sent.get("x-catalogue-key", "")).encode())


async def _answer(call: Callable[[], Awaitable[Any]], context: Any) -> Any:
    """What the call gives; an error of ours as the status that clients know."""
    try:
        with under(_begun(context)) as begun:
            return await call()
    except (BadQuery, Busy) as error:
        also = (("retry-after", "1"),) if isinstance(error, Busy) else ()
        context.set_trailing_metadata((("trace-id", begun.trace_id), *also))
        await context.abort(code_of(error), str(error))
