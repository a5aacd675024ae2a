"""The routes of the live part: changes of the catalogue, events, sessions, erasure.

PUT, PATCH, DELETE /items/{item_id}, POST /items/batch    with the catalogue key
POST /events, POST /users/link                            with the key of the service
POST /users/erase, POST /users/export                     with the admin key
"""

import hashlib
import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from service.errors import BadQuery, Malformed, UnsupportedMedia, shown
from service.http.documented_route import ADMIN, CATALOGUE, Answered, DocumentedRoute
from service.http.multipart import Part, read_multipart
from service.http.schemas import MULTIPART, json_of, picture_of, text_of
from service.live.api import LiveApi
from service.live.unit_of_work import Attempt

JSON, JSON_LINES = "application/json", "application/x-ndjson"
MAX_KEY = 255  # characters of an Idempotency-Key
TEXT = {"type": "string"}
ATTRIBUTES = {
    "type": "object",
    "description": "title, category and attributes by name; null takes one away",
    "additionalProperties": True,
}
EVENT = {
    "type": "object",
    "required": ["item_id"],
    "properties": {
        "user_id": TEXT,
        "session_id": {**TEXT, "description": "in place of a user_id, of somebody who is not signed in"},
        "item_id": TEXT,
        "event": {**TEXT, "description": "view, like, cart, purchase, dismiss, or as shops' logs name them"},
        "value": {"type": "number"},
        "timestamp": {"type": "number", "description": "seconds since 1970; now, if not said"},
    },
    "additionalProperties": False,
}

GetLive = Callable[[], LiveApi]


def item_routes(live: GetLive, *, key: str | None, answered: Answered) -> list[DocumentedRoute]:
    """live: called once a request; key: the secret, None for no such routes."""
    if key is None:
        return []

    async def put(request: Request) -> Response:
        body, content_type = await request.body(), _content_type(request)
        if content_type == MULTIPART:
            parts = read_multipart(body, request.headers["content-type"])
            body = _said(parts)
            attributes, pictures = _item_of(parts)
        else:
            attributes, pictures = _json(body, content_type), []
        reply = await live().put_item(_item_id(request), attributes, pictures, _attempt(request, body))
        return JSONResponse(reply)

    async def patch(request: Request) -> Response:
        body = await request.body()
        attributes = _json(body, _content_type(request))
        return JSONResponse(await live().patch_item(_item_id(request), attributes, _attempt(request, body)))

    async def withdraw(request: Request) -> Response:
        return JSONResponse(await live().withdraw_item(_item_id(request), _attempt(request, b"")))

    async def batch(request: Request) -> Response:
        body = await request.body()
        lines = [line for line in body.split(b"\n") if line.strip()]
        replies = await live().change_items(lines, _attempt(request, body))
        return Response(b"".join(orjson.dumps(reply) + b"\n" for reply in replies), media_type=JSON_LINES)

    image = {"type": "array", "items": {"type": "string", "format": "binary"}, "description": "up to ten files"}
    form = {"type": "object", "properties": {"attributes": ATTRIBUTES, "image": image}}
    common: dict[str, Any] = {"key": CATALOGUE, "secret": key, "answered": answered}
    return [
        DocumentedRoute(
            "POST", "/items/batch", batch, "Change many items, a JSON object a line", body={JSON_LINES: TEXT}, **common
        ),
        DocumentedRoute(
            "PUT", "/items/{item_id:path}", put, "Make an item, or give it other attributes and pictures",
            body={JSON: ATTRIBUTES, MULTIPART: form}, **common,
        ),
        DocumentedRoute(
            "PATCH", "/items/{item_id:path}", patch, "Change attributes of an item", body={JSON: ATTRIBUTES}, **common
        ),
        DocumentedRoute("DELETE", "/items/{item_id:path}", withdraw, "Withdraw an item", **common),
    ]  # fmt: skip


def _item_of(parts: list[Part]) -> tuple[Any, list[bytes]]:
    """Attributes and pictures. Raises BadQuery for any other part, and for attributes sent twice."""
    attributes: Any = {}
    pictures: list[bytes] = []
    for part in parts:
        if part.name == "image":
            pictures.append(picture_of(part))
        elif part.name == "attributes" and attributes == {}:
            attributes = json_of(text_of(part).encode(), "attributes")
        else:
            raise BadQuery(
                f"expected one part `attributes` (JSON) and parts `image`; got {shown(part.name)}",
                field=part.name[:80],
            )
    return attributes, pictures


def event_routes(live: GetLive, *, answered: Answered) -> list[DocumentedRoute]:
    """live: called once a request."""

    async def events(request: Request) -> Response:
        body = await request.body()
        values = _json(body, _content_type(request))
        return Response(orjson.dumps(await live().add_events(values, _attempt(request, body))), media_type=JSON)

    async def link(request: Request) -> Response:
        body = await request.body()
        values = read_texts(body, "session_id", "user_id")
        return JSONResponse(await live().link(values["session_id"], values["user_id"], _attempt(request, body)))

    many = {"type": "object", "required": ["events"], "properties": {"events": {"type": "array", "items": EVENT}}}
    return [
        DocumentedRoute(
            "POST", "/events", events, "Keep what users did", body={JSON: {"oneOf": [EVENT, many]}}, answered=answered
        ),
        DocumentedRoute(
            "POST", "/users/link", link, "Have a session be a user's", body={JSON: texts("session_id", "user_id")},
            answered=answered,
        ),
    ]  # fmt: skip


def user_routes(live: GetLive, *, key: str | None, answered: Answered) -> list[DocumentedRoute]:
    """live: called once a request; key: the secret, None for no such routes."""
    if key is None:
        return []

    def of_user(do: Callable[[LiveApi, str], Awaitable[dict[str, Any]]]) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            return JSONResponse(await do(live(), read_texts(await request.body(), "user_id")["user_id"]))

        return answer

    common: dict[str, Any] = {
        "body": {JSON: texts("user_id")}, "key": ADMIN, "secret": key, "answered": answered,
    }  # fmt: skip
    return [
        DocumentedRoute("POST", "/users/erase", of_user(LiveApi.erase), "Forget a user", **common),
        DocumentedRoute("POST", "/users/export", of_user(LiveApi.export), "All that is held of a user", **common),
    ]


def texts(*names: str) -> dict[str, Any]:
    """The schema of an object that holds these texts and nothing else."""
    return {
        "type": "object",
        "required": list(names),
        "properties": dict.fromkeys(names, TEXT),
        "additionalProperties": False,
    }


def read_texts(body: bytes, *names: str) -> dict[str, str]:
    """The texts under these names, of a body that holds nothing else: ids stand there, since proxies log URLs.

    Raises Malformed."""
    expected = f"expected {json.dumps(dict.fromkeys(names, '...'))}, with the values as text"
    try:
        values = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Malformed(expected) from error
    if not isinstance(values, dict) or set(values) != set(names) or not all(map(_is_text, values.values())):
        raise Malformed(expected, field=next((name for name in names if not _has_text(values, name)), None))
    return values


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _has_text(values: Any, name: str) -> bool:
    return isinstance(values, dict) and _is_text(values.get(name))


def _item_id(request: Request) -> str:
    item_id: str = request.path_params["item_id"]
    return item_id


def _content_type(request: Request) -> str:
    return request.headers.get("content-type", JSON).partition(";")[0].strip().lower()


def _json(body: bytes, content_type: str) -> Any:
    if content_type != JSON:
        raise UnsupportedMedia(f"expected {JSON}; got {content_type[:80]!r}")
    return json_of(body, "the body")


def _said(parts: Sequence[Part]) -> bytes:
    """What a form says; its own bytes are others each time that it is sent, since clients draw a boundary."""
    return b"\n".join(f"{part.name} {len(part.data)}\n".encode() + part.data for part in parts)


def _attempt(request: Request, body: bytes) -> Attempt | None:
    """The request that this may be a repetition of. Raises BadQuery."""
    said = request.headers.get("idempotency-key")
    if said is None:
        return None
    if not 1 <= len(said) <= MAX_KEY:
        raise BadQuery(f"Idempotency-Key has 1 to {MAX_KEY} characters; got {len(said)}", field="Idempotency-Key")
    what = f"{request.method} {request.url.path}".encode()
    key = hashlib.sha256(f"{request.method} {said}".encode()).hexdigest()
    return Attempt(key, hashlib.sha256(what + b"\n" + body).hexdigest())
