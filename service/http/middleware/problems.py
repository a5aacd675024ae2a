"""One thin ASGI layer around everything: every error is application/problem+json (RFC 9457).

{"type": "about:blank", "title": "Content Too Large", "status": 413, "detail": "...", "field": "image",
 "trace_id": "0af7651916cd43dd8448eb211c80319c"}

Below a path whose clients expect another shape of error, they get that one.
"""

import json
import logging
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service import context
from service.errors import (
    BadQuery,
    Busy,
    CallerGone,
    DeadlineMissed,
    EncoderAway,
    KeyNeeded,
    Malformed,
    NotFound,
    Overloaded,
    SlowBody,
    StoreAway,
    TooLarge,
    UnreadablePicture,
    UnsupportedMedia,
)

logger = logging.getLogger("vitrine")

# the most specific class first
STATUS = {
    Malformed: HTTPStatus.BAD_REQUEST,
    UnsupportedMedia: HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    UnreadablePicture: HTTPStatus.UNPROCESSABLE_ENTITY,
    TooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    KeyNeeded: HTTPStatus.UNAUTHORIZED,
    NotFound: HTTPStatus.NOT_FOUND,
    BadQuery: HTTPStatus.UNPROCESSABLE_ENTITY,
    Overloaded: HTTPStatus.TOO_MANY_REQUESTS,
    DeadlineMissed: HTTPStatus.SERVICE_UNAVAILABLE,
    EncoderAway: HTTPStatus.SERVICE_UNAVAILABLE,
    StoreAway: HTTPStatus.SERVICE_UNAVAILABLE,
    SlowBody: HTTPStatus.REQUEST_TIMEOUT,
    CallerGone: HTTPStatus.REQUEST_TIMEOUT,  # nobody reads it; it stands in the metrics
}
PROBLEM = "application/problem+json"

Refusal = tuple[str, Callable[[int, str], Response]]  # the start of a path; (status, detail) -> response


def problem(status: int, detail: str, *, field: str | None = None) -> Response:
    """A response that says what went wrong."""
    body: dict[str, Any] = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status}
    body["detail"] = detail
    if field is not None:
        body["field"] = field
    if (call := context.current()) is not None:
        body["trace_id"] = call.trace_id
    headers = {"Retry-After": "1"} if status in (429, 503) else None
    return Response(json.dumps(body), status_code=status, media_type=PROBLEM, headers=headers)


def status_of(error: BadQuery | Busy) -> int:
    """The HTTP status of an error of ours."""
    return next(status for kind, status in STATUS.items() if isinstance(error, kind))


def problem_of(error: BadQuery | Busy) -> Response:
    """The response for an error of ours."""
    return problem(status_of(error), str(error), field=error.field if isinstance(error, BadQuery) else None)


def refusal_of(error: BadQuery | Busy, path: str, refusals: tuple[Refusal, ...]) -> tuple[int, Response]:
    """The status and the response for an error of ours, as errors of this path look."""
    how = refusal_for(path, refusals)
    status = status_of(error)
    return status, problem_of(error) if how is problem else how(status, str(error))


def refusal_for(path: str, refusals: tuple[Refusal, ...]) -> Callable[[int, str], Response]:
    """How errors of this path look."""
    return next((how for start, how in refusals if below(path, (start,))), problem)


def below(path: str, starts: tuple[str, ...]) -> bool:
    """Whether it is one of these paths, or lies below one."""
    return any(path == start or path.startswith(start + "/") for start in starts)


class ProblemLayer:
    """ASGI middleware. What the app answers with status 400 or more leaves as problem+json, or as a refusal has it."""

    def __init__(self, app: ASGIApp, refusals: tuple[Refusal, ...] = ()) -> None:
        self.app = app
        self.refusals = refusals

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path = scope["path"]
        refuse = refusal_for(path, self.refusals)
        exchange = _Exchange(scope, receive, send, refuse)
        try:
            await self.app(scope, receive, exchange.send)
        except Exception:
            logger.exception("unexpected error on %s", _without_id(path))
            await exchange.fail(refuse(500, "an unexpected error; the log has it"))


class _Exchange:
    """One request and its response, as they pass through the layer."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, refuse: Callable[[int, str], Response]) -> None:
        self._scope, self._receive, self._send = scope, receive, send
        self._refuse = refuse
        self._own = refuse(400, "").media_type  # of errors that leave as they are
        self._held: Message | None = None  # the start of an error response, until its body is known
        self._body = b""
        self._started = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start" and message["status"] >= 400 and not self._is_own(message):
            self._held = message
            return
        if self._held is None:
            self._started = True
            await self._send(message)
            return
        self._body += message.get("body", b"")
        if not message.get("more_body", False):
            status = self._held["status"]
            await self.fail(self._refuse(status, _detail(self._body, status, self._scope)))

    async def fail(self, response: Response) -> None:
        """Answer with a problem, if nothing was answered yet."""
        if not self._started:
            self._started, self._held = True, None
            await response(self._scope, self._receive, self._send)

    def _is_own(self, message: Message) -> bool:
        own = str(self._own).encode()
        return any(name.lower() == b"content-type" and value.startswith(own) for name, value in message["headers"])


def _without_id(path: str) -> str:
    """The path as it may stand in a log: the ids of users may not."""
    return "/users/..." if path.startswith("/users/") else path


def _detail(body: bytes, status: int, scope: Scope) -> str:
    """What a framework's own error body says, in a sentence."""
    if status == 404:
        return f"no route {scope['method']} {scope['path']}; GET /docs.json lists them"
    if status == 405:
        return f"{scope['path']} does not take {scope['method']}; GET /docs.json lists the routes"
    if status == 429:
        return "too many requests under way; try again in a moment"
    try:
        said = json.loads(body)
    except ValueError:
        return body.decode(errors="replace").strip() or HTTPStatus(status).phrase
    if isinstance(said, list) and said:
        said = said[0]
    return str(said.get("error", said)) if isinstance(said, dict) else str(said)
