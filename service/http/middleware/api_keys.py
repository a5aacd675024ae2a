"""The API keys of HTTP and gRPC: secrets, sent as `Authorization: Bearer KEY` or `X-API-Key: KEY`, each with a rate of
its own where it has one. Several at once let a key be changed without a moment in which callers are refused."""

import hmac
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from starlette.types import ASGIApp, Receive, Scope, Send

from service.http.middleware.problems import Refusal, refusal_for

BEARER = b"Bearer "
NAMES = (b"authorization", b"x-api-key")
OPEN_PATHS = ("/livez", "/readyz", "/healthz", "/v2/health/live", "/v2/health/ready")  # for probes
EXPECTED = "this service asks for its API key: send `Authorization: Bearer KEY`, or `X-API-Key: KEY`"
BURST = 2.0  # seconds of its rate that a key may use at once

Headers = Iterable[tuple[bytes, bytes]]


@dataclass(slots=True)
class Key:
    """One secret. rate: requests a second, None for as many as come."""

    secret: bytes
    rate: float | None = None
    left: float = field(init=False)
    seen: float = field(init=False)

    def __post_init__(self) -> None:
        self.left, self.seen = BURST * (self.rate or 0), time.monotonic()

    def take(self) -> bool:
        """Whether one more request is within the rate (a token bucket)."""
        if self.rate is None:
            return True
        now = time.monotonic()
        self.left = min(max(1.0, BURST * self.rate), self.left + (now - self.seen) * self.rate)
        self.seen = now
        if self.left < 1:
            return False
        self.left -= 1
        return True


class Keys:
    """The keys that may ask, by name."""

    def __init__(self, keys: Mapping[str, Key]) -> None:
        """None: everybody may ask."""
        self._keys = dict(keys)

    def __bool__(self) -> bool:
        return bool(self._keys)

    def refuse(self, headers: Headers) -> tuple[int, str] | None:
        """None where the request may pass, else the status and what is wrong: no key, or too many requests."""
        sent = [value.removeprefix(BEARER) for name, value in headers if name in NAMES]
        found = [each for each in self._keys.items() if any(hmac.compare_digest(s, each[1].secret) for s in sent)]
        if not found:
            return 401, EXPECTED
        name, key = found[0]
        return None if key.take() else (429, f"key {name!r} may ask {key.rate:g} times a second; send it again later")


def holds_key(headers: Headers, key: bytes, name: bytes) -> bool:
    """Whether this header is the key. name: in lower case. Takes as long for a wrong key as for a nearly right one."""
    return any(hmac.compare_digest(value, key) for given, value in headers if given == name)


class KeyLayer:
    """ASGI middleware. Answers 401 to whoever sends no key, 429 past its rate, but for what probes ask."""

    def __init__(self, app: ASGIApp, keys: Keys, refusals: tuple[Refusal, ...] = ()) -> None:
        self.app, self.keys, self.refusals = app, keys, refusals

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        asked = self.keys and scope["type"] == "http" and scope["path"] not in OPEN_PATHS
        if not asked or (refused := self.keys.refuse(scope["headers"])) is None:
            await self.app(scope, receive, send)
            return
        response = refusal_for(scope["path"], self.refusals)(*refused)
        if refused[0] == 401:
            response.headers["WWW-Authenticate"] = "Bearer"
        await response(scope, receive, send)
