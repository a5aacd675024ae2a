"""What needs the admin key, and is there only where one is set.

POST /admin/release    have another release answer in this process, without a restart
POST /users/profile    what is held about a user: the id stands in the body, since proxies log URLs
"""

import dataclasses
import json
from collections.abc import Awaitable, Callable

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from service.errors import BadQuery, Malformed, VitrineError
from service.http.middleware.api_keys import holds_key
from service.http.middleware.problems import problem, problem_of
from service.recommender.pipeline import Recommender
from service.recommender.query import check_id
from service.serving.loaded_release import LoadedRelease

ADMIN_HEADER = b"x-admin-key"


def routes(
    switch: Callable[[str], LoadedRelease], recommender: Callable[[], Recommender], *, key: str | None
) -> list[Route]:
    """switch: has another release answer; recommender: called once a request;
    key: the secret, None for no such routes."""
    if key is None:
        return []
    secret = key.encode()

    def guarded(endpoint: Callable[[str], Response], field: str) -> Callable[[Request], Awaitable[Response]]:
        async def answered(request: Request) -> Response:
            if not holds_key(request.scope["headers"], secret, ADMIN_HEADER):
                return problem(401, "send the admin key: `X-Admin-Key: KEY`")
            try:
                return await run_in_threadpool(endpoint, _field(await request.body(), field))
            except BadQuery as error:
                return problem_of(error)

        return answered

    def release(number: str) -> Response:
        try:
            loaded = switch(number)
        except VitrineError as error:
            if isinstance(error, BadQuery):
                raise
            return problem(409, f"the release that answers goes on: {error}")
        scope = "this process alone; each pod is asked for itself, or follows the file that VITRINE_RELEASE names"
        return JSONResponse({"release": loaded.number, "encoder": loaded.encoder, "scope": scope})

    def profile(user_id: str) -> Response:
        return JSONResponse(dataclasses.asdict(recommender().users.profile(check_id(user_id, "user_id"))))

    return [
        Route("/admin/release", guarded(release, "release"), methods=["POST"], name="Have another release answer here"),
        Route("/users/profile", guarded(profile, "user_id"), methods=["POST"], name="What is held about a user"),
    ]


def _field(body: bytes, name: str) -> str:
    """The text under a name, of a body that holds nothing else. Raises Malformed."""
    expected = f'expected {{"{name}": "..."}}, with the value as text'
    try:
        values = json.loads(body)
        value = values.pop(name)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Malformed(expected, field=name) from error
    if not isinstance(value, str) or values:
        raise Malformed(expected, field=name)
    return value
