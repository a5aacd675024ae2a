"""The API key of HTTP and gRPC: one secret, sent as `Authorization: Bearer KEY` or `X-API-Key: KEY`."""

import hmac
from collections.abc import Iterable

from starlette.types import ASGIApp, Receive, Scope, Send

from service.problems import Refusal, refusal_for

BEARER = b"Bearer "
NAMES = (b"authorization", b"x-api-key")
OPEN_PATHS = ("/livez", "/readyz", "/healthz", "/metrics", "/v2/health/live", "/v2/health/ready")  # for probes
EXPECTED = "this service asks for its API key: send `Authorization: Bearer KEY`, or `X-API-Key: KEY`"


def holds_key(headers: Iterable[tuple[bytes, bytes]], key: bytes, *names: bytes) -> bool:
    """Whether one of these headers (or gRPC metadata) is the key. names: that it may have, in lower case; default:
    those of the API key. Takes as long for a wrong key as for a nearly right one."""
    return any(
        hmac.compare_digest(value.removeprefix(BEARER), key) for name, value in headers if name in (names or NAMES)
    )


class KeyLayer:
    """ASGI middleware. Answers 401 to whoever does not send the key, but for what probes ask."""

    def __init__(self, app: ASGIApp, key: str | None, refusals: tuple[Refusal, ...] = ()) -> None:
        """key: None asks nobody."""
        self.app = app
        self.key = key.encode() if key else None
        self.refusals = refusals

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        asked = self.key is not None and scope["type"] == "http" and scope["path"] not in OPEN_PATHS
        if self.key is None or not asked or holds_key(scope["headers"], self.key):
            await self.app(scope, receive, send)
        else:
            response = refusal_for(scope["path"], self.refusals)(401, EXPECTED)
            response.headers["WWW-Authenticate"] = "Bearer"
            await response(scope, receive, send)
