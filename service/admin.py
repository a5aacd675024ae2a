"""POST /admin/release: have another release answer, without a restart. There only where an admin key is set."""

import json
from collections.abc import Callable

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from service.errors import BadQuery, Malformed, VitrineError
from service.keys import holds_key
from service.problems import problem, problem_of
from service.serving import Serving

ADMIN_HEADER = b"x-admin-key"


def routes(switch_to: Callable[[], Callable[[str], Serving]], *, key: str | None) -> list[Route]:
    """switch_to: called once a request; key: the secret, None for no such route."""
    if key is None:
        return []
    secret = key.encode()

    async def release(request: Request) -> Response:
        if not holds_key(request.scope["headers"], secret, ADMIN_HEADER):
            return problem(401, "send the admin key: `X-Admin-Key: KEY`")
        try:
            serving = await run_in_threadpool(switch_to(), await _number(request))
        except BadQuery as error:
            return problem_of(error)
        except VitrineError as error:
            return problem(409, f"the release that answers goes on: {error}")
        return JSONResponse({"release": serving.number, "encoder": serving.encoder})

    return [Route("/admin/release", release, methods=["POST"], name="Have another release answer")]


async def _number(request: Request) -> str:
    try:
        body = json.loads(await request.body())
        number = body["release"]
    except (ValueError, KeyError, TypeError) as error:
        raise Malformed('expected {"release": "7"}', field="release") from error
    if not isinstance(number, str):
        raise Malformed('expected {"release": "7"}, with the number as text', field="release")
    return number
