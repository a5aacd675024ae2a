"""Records each finished request: metrics, a log line, a trace."""

import logging
import time
from http import HTTPStatus
from typing import TYPE_CHECKING

from starlette.types import ASGIApp, Receive, Scope, Send

from service import context
from service.context import HTTP, REST, RequestContext
from service.observability.metrics import Metrics
from service.recommender.user_keys import hash_user

if TYPE_CHECKING:
    from service.observability.tracing import Tracing

FAILED_A_SECOND = 20  # lines; in a storm of refusals each says the same

logger = logging.getLogger("vitrine")


class RequestContextLayer:
    """ASGI middleware, outermost: gives every HTTP request its context."""

    def __init__(self, app: ASGIApp, rest: str) -> None:
        """rest: the start of the paths of the Open Inference Protocol."""
        self.app, self._rest = app, rest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        traceparent = key = b""
        for name, value in scope["headers"]:
            if name == b"traceparent":
                traceparent = value
            elif name == b"x-catalogue-key":
                key = value
        protocol = REST if scope["path"].startswith(self._rest) else HTTP
        with context.under(context.begin(protocol, traceparent.decode("latin-1"), key)):
            await self.app(scope, receive, send)


class RequestRecorder:
    """Called for every request once it is answered, in the event loop."""

    def __init__(
        self, metrics: Metrics, *, user_key: str, log: str = "failed", tracing: "Tracing | None" = None
    ) -> None:
        """user_key: of the hash that stands for a user; log: which requests get a line: none, failed or all."""
        self._metrics, self._user_key, self._log, self._tracing = metrics, user_key, log, tracing
        self._second, self._lines = 0, 0

    def answered(self, route: str, status: int) -> None:
        """The current request was answered. route: a known name, never what a client sent."""
        call = context.current()
        assert call is not None, "only requests are answered"
        end = time.time_ns()
        seconds = (end - call.began) / 1e9
        self._metrics.observe_answer(route, call.protocol, status, call.tier, call.release, seconds)
        if self._log == "all" or (self._log == "failed" and status >= HTTPStatus.BAD_REQUEST and self._may_write(end)):
            level = logging.ERROR if status == HTTPStatus.INTERNAL_SERVER_ERROR else logging.INFO
            logger.log(level, "answered", extra={"fields": self._fields(call, route, status, seconds)})
        if self._tracing is not None:
            attributes: dict[str, str | int] = {"http.route": route, "http.response.status_code": status}
            attributes |= {"vitrine.protocol": call.protocol, "vitrine.tier": call.tier}
            self._tracing.tell(call, route, end, attributes | {"vitrine.release": call.release})

    def _may_write(self, now: int) -> bool:
        second = now // 10**9
        self._lines = self._lines + 1 if second == self._second else 1
        self._second = second
        return self._lines <= FAILED_A_SECOND

    def _fields(self, call: RequestContext, route: str, status: int, seconds: float) -> dict[str, object]:
        fields: dict[str, object] = {"trace_id": call.trace_id, "route": route, "protocol": call.protocol}
        fields |= {"status": status, "tier": call.tier, "release": call.release, "ms": round(seconds * 1000, 2)}
        if call.user_id is not None:
            fields["user"] = hash_user(call.user_id, self._user_key)
        return fields | {f"{stage}_ms": round((until - since) / 1e6, 2) for stage, since, until in call.stages}
