"""What is done with a call before it reaches a model: its key, and how much may arrive at once."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from http import HTTPStatus
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from tritonclient.grpc import service_pb2

from service.errors import BadQuery, Busy, Malformed, Overloaded, SlowBody
from service.http.middleware.api_keys import Keys
from service.http.middleware.request_body import Uploads
from service.open_inference.grpc_messages import MODEL_INFER, MODEL_STREAM_INFER, SERVICE, code_of

LOOK_AGAIN = 0.5  # seconds between looks for who watches health
AT_ONCE = 256  # calls; the batcher refuses what it cannot hold long before
ARRIVING = 8  # messages that may arrive at once: gRPC does not say how long one is before it is there
STREAMS = 4  # streaming calls at once; each may have a message on its way at any time
LEAVE_AFTER = 1.0  # seconds after which a message that is still arriving makes room for another call
OPEN = (f"/{SERVICE}/ServerLive", f"/{SERVICE}/ServerReady", "/grpc.health.v1.Health/")  # no key is asked for


class KeyCheck(grpc.aio.ServerInterceptor):
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


class Arrivals(grpc.aio.ServerInterceptor):
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
                handler.request_deserializer,
                handler.response_serializer,
            )
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
            await context.abort(code_of(error), str(error))

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
