"""The context of one request, for metrics, logs and traces: `current()` gives it.

A request has the trace id of its caller (W3C Trace Context) or one of its own. What is known about it is added as it
becomes known. It is recorded once the request is answered.
"""

import re
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

HTTP, REST, GRPC = "http", "rest", "grpc"  # native, and the Open Inference Protocol's two
TRACEPARENT = re.compile(r"[0-9a-f]{2}-(?P<trace>[0-9a-f]{32})-(?P<span>[0-9a-f]{16})-(?P<flags>[0-9a-f]{2})", re.A)

Stage = tuple[str, int, int]  # name, start and end in nanoseconds since 1970


@dataclass(slots=True)
class RequestContext:
    """One request. parent: the caller's span, "" for none; release, tier: of the answer; user_id: never written to a
    log as it is."""

    protocol: str
    trace_id: str
    parent: str = ""
    sampled: bool = False  # by the caller
    began: int = field(default_factory=time.time_ns)
    release: str = ""
    tier: str = ""
    user_id: str | None = None
    catalogue_key: bytes = b""  # as it was sent
    stages: list[Stage] = field(default_factory=list)


_current: ContextVar[RequestContext | None] = ContextVar("request", default=None)
_lane = threading.local()


def current() -> RequestContext | None:
    """The request that is being answered, in its task."""
    return _current.get()


def begin(protocol: str, traceparent: str = "", catalogue_key: bytes = b"") -> RequestContext:
    """A call, with the trace of its caller where the header says one."""
    call = _traced(protocol, traceparent)
    call.catalogue_key = catalogue_key
    return call


def _traced(protocol: str, traceparent: str) -> RequestContext:
    if (said := TRACEPARENT.fullmatch(traceparent)) and said["trace"].strip("0") and said["span"].strip("0"):
        return RequestContext(protocol, said["trace"], said["span"], bool(int(said["flags"], 16) & 1))
    return RequestContext(protocol, secrets.token_hex(16))


@contextmanager
def under(call: RequestContext) -> Iterator[RequestContext]:
    """What is done in the block is done for this call."""
    before = _current.set(call)
    try:
        yield call
    finally:
        _current.reset(before)


@contextmanager
def stages() -> Iterator[list[Stage]]:
    """The stages that this thread goes through in the block."""
    found: list[Stage] = []
    _lane.stages = found
    try:
        yield found
    finally:
        _lane.stages = None


def went_through(name: str, seconds: float) -> None:
    """This thread has just ended a stage."""
    found = getattr(_lane, "stages", None)
    if found is not None:
        now = time.time_ns()
        found.append((name, now - int(seconds * 1e9), now))
