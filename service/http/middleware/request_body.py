"""What is done with a request before any route sees it: its body is read whole, within bounds, and unpacked.

However many clients send slowly, or never end, their bodies are bounded in number and in bytes together. Where a bound
is reached, the body that has been silent for longest makes room; one that makes progress is not cut.
"""

import asyncio
import time
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import BadQuery, Busy, Malformed, Overloaded, SlowBody, TooLarge, UnsupportedMedia, shown
from service.http.middleware.problems import Refusal, below, refusal_of

SILENT = 1.0  # seconds without a byte after which a body may be made to give way
PIECE = 256 * 1024  # bytes that are unpacked at once

Answered = Callable[[str, int], None]  # (path, status)
Unpack = Callable[[bytes, bool], Iterator[bytes]]  # (what came, whether it is the last) -> what it holds


@dataclass(slots=True, eq=False)
class Upload:
    """One body, as far as it has come. task: waits for more of it, None once it is there."""

    task: "asyncio.Task[None] | None"
    bytes: int = 0
    last: float = field(default_factory=time.monotonic)
    evicted: bool = False


class Uploads:
    """The bodies of all requests that are arriving or being answered, over every protocol. For one event loop."""

    def __init__(self, *, most: int, most_bytes: int, evicted: Callable[[], None] = lambda: None) -> None:
        """most: bodies at once; most_bytes: that they may have together; evicted: told of each that made room."""
        self._most, self._most_bytes, self._told = most, most_bytes, evicted
        self._held: set[Upload] = set()
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._held)

    @asynccontextmanager
    async def upload(self) -> AsyncIterator[Upload]:
        """Room for one body, until its request is answered. Raises Overloaded where there is none; inside, SlowBody
        where this body has to make room for another."""
        if len(self._held) >= self._most and not self._make_room():
            raise Overloaded(f"{len(self._held)} requests with a body are under way, and no more may; send it later")
        task = asyncio.current_task()
        assert task is not None
        upload = Upload(task)
        self._held.add(upload)
        try:
            yield upload
        except asyncio.CancelledError:
            if upload.evicted:
                task.uncancel()
                raise SlowBody("the body came too slowly while others were waiting; send it again") from None
            raise
        finally:
            self._let_go(upload)

    def grow(self, upload: Upload, size: int) -> None:
        """More of a body is there. Raises Overloaded where all bodies together would be too large."""
        upload.last = time.monotonic()
        while self.bytes + size > self._most_bytes:
            if not self._make_room(but=upload):
                raise Overloaded(
                    f"the bodies of {len(self._held)} requests have {self.bytes / 1e6:.0f} MB, and no more may come; "
                    "send it later"
                )
        upload.bytes += size
        self.bytes += size

    def _make_room(self, but: Upload | None = None) -> bool:
        """End the body that has been silent for longest, if one has been for a while."""
        arriving = [upload for upload in self._held if upload.task is not None and upload is not but]
        silent = min(arriving, key=lambda upload: upload.last, default=None)
        if silent is None or silent.task is None or time.monotonic() - silent.last < SILENT:
            return False
        silent.evicted = True
        self._let_go(silent)
        silent.task.cancel()
        self._told()
        return True

    def _let_go(self, upload: Upload) -> None:
        if upload in self._held:
            self._held.discard(upload)
            self.bytes -= upload.bytes


@dataclass(frozen=True, slots=True)
class Pace:
    """How slowly a body may come. stall: seconds that it may pause; slowest: bytes a second on average, once so many
    seconds have passed."""

    stall: float
    slowest: float = 1000.0


class RequestBodyLayer:
    """ASGI middleware. Reads the body of a request, and hands it on as one message."""

    def __init__(
        self,
        app: ASGIApp,
        uploads: Uploads,
        max_body_bytes: int,
        pace: Pace,
        answered: Answered,
        refusals: tuple[Refusal, ...] = (),
        free: tuple[str, ...] = (),
    ) -> None:
        """max_body_bytes: of one body, also when it has been unpacked; answered: told of every request that ends
        here; free: paths, and below, whose query parameters are not looked at."""
        self.app, self._uploads, self._max_body_bytes, self._pace = app, uploads, max_body_bytes, pace
        self._answered, self._refusals, self._free = answered, refusals, free

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers, began = dict(scope["headers"]), False

        async def sending(message: Message) -> None:
            nonlocal began
            began = True
            await send(message)

        try:
            self._require_no_parameters(scope)
            if b"transfer-encoding" not in headers and headers.get(b"content-length", b"0") == b"0":
                await self.app(scope, receive, sending)
                return
            async with self._uploads.upload() as upload:
                # held by the message alone: whoever has read it may let it go
                message: list[Message] = [await self._read(receive, headers, upload)]
                upload.task = None
                await self.app(_plain(scope, upload.bytes), _once(message, receive), sending)
        except (BadQuery, Busy) as error:
            if began:
                raise
            status, response = refusal_of(error, scope["path"], self._refusals)
            self._answered(scope["path"], status)
            await response(scope, receive, send)
        except ClientDisconnect:
            if began:
                raise

    def _require_no_parameters(self, scope: Scope) -> None:
        if not scope["query_string"] or below(scope["path"], self._free):
            return
        named = scope["query_string"].decode("latin-1").partition("&")[0].partition("=")[0]
        raise BadQuery(f"unknown query parameter {shown(named)}; this service takes none, fields belong into the body")

    async def _read(self, receive: Receive, headers: dict[bytes, bytes], upload: Upload) -> Message:
        """The whole body, unpacked, as one message. Raises TooLarge, SlowBody, UnsupportedMedia, Malformed, Overloaded,
        ClientDisconnect."""
        declared = headers.get(b"content-length", b"")
        if declared.isdigit() and int(declared) > self._max_body_bytes:
            raise self._too_large(int(declared))
        unpack = _unpacking(headers.get(b"content-encoding", b"").decode("latin-1").strip().lower())
        parts: list[bytes] = []
        received, began, more = 0, time.monotonic(), True
        while more:
            message = await self._next(receive, received)
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            chunk, more = message.get("body", b""), message.get("more_body", False)
            received += len(chunk)
            if received > self._max_body_bytes:
                raise self._too_large(received)
            self._require_pace(received, time.monotonic() - began, more)
            for part in unpack(chunk, not more):
                self._uploads.grow(upload, len(part))
                if upload.bytes > self._max_body_bytes:
                    most = self._max_body_bytes
                    raise TooLarge(f"the body has more than {most} bytes when it is unpacked; no more are accepted")
                parts.append(part)
        return {"type": "http.request", "body": b"".join(parts), "more_body": False}

    async def _next(self, receive: Receive, received: int) -> Message:
        try:
            return await asyncio.wait_for(receive(), self._pace.stall)
        except TimeoutError:
            raise SlowBody(
                f"no more of the body came within {self._pace.stall:g} s, after {received} bytes; send it again"
            ) from None

    def _require_pace(self, received: int, took: float, more: bool) -> None:
        if more and took > self._pace.stall and received < (took - self._pace.stall) * self._pace.slowest:
            raise SlowBody(
                f"the body came at {received / took:.0f} bytes a second; {self._pace.slowest:g} are expected at least"
            )

    def _too_large(self, length: int) -> TooLarge:
        return TooLarge(f"the body has {length} bytes or more; at most {self._max_body_bytes} are accepted")


def _plain(scope: Scope, length: int) -> Scope:
    """The request as if its body had been sent plainly, at once."""
    dropped = (b"content-encoding", b"content-length", b"transfer-encoding")
    headers = [(name, value) for name, value in scope["headers"] if name not in dropped]
    return {**scope, "headers": [*headers, (b"content-length", str(length).encode())]}


def _once(held: list[Message], receive: Receive) -> Receive:
    """The one message, which is then no longer held; then what the connection says."""

    async def next_message() -> Message:
        return held.pop() if held else await receive()

    return next_message


def _unpacking(encoding: str) -> Unpack:
    """Raises UnsupportedMedia."""
    if encoding in ("", "identity"):
        return lambda chunk, last: iter((chunk,))
    if encoding not in ("gzip", "x-gzip", "deflate"):
        raise UnsupportedMedia(f"Content-Encoding {shown(encoding)} is not read; send gzip, deflate, or none")
    expand = zlib.decompressobj(wbits=47)  # gzip or zlib, whichever it is

    def unpack(chunk: bytes, last: bool) -> Iterator[bytes]:
        try:
            while chunk and not expand.eof:
                yield expand.decompress(chunk, PIECE)
                chunk = expand.unconsumed_tail
        except zlib.error as error:
            raise Malformed(f"the body is not {encoding} ({error})") from error
        if expand.unused_data or (chunk and expand.eof) or (last and not expand.eof):
            raise Malformed(f"the {encoding} body breaks off, or something follows it")

    return unpack
