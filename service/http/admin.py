"""What needs the admin key, and is there only where one is set.

POST /admin/release    have another release answer in this process, without a restart
POST /users/profile    what is known of a user: the id stands in the body, since proxies log URLs
"""

import dataclasses
from collections.abc import Callable

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from service.errors import BadQuery, VitrineError
from service.http.documented_route import ADMIN, DocumentedRoute
from service.http.live_routes import JSON, read_texts, texts
from service.http.middleware.problems import problem
from service.recommender.pipeline import Recommender
from service.recommender.query import check_id
from service.serving.loaded_release import LoadedRelease

SCOPE = "this process alone; each pod is asked for itself, or follows the file that VITRINE_RELEASE names"


def routes(
    switch: Callable[[str], LoadedRelease], recommender: Callable[[], Recommender], *, key: str | None
) -> list[DocumentedRoute]:
    """switch: has another release answer; recommender: called once a request;
    key: the secret, None for no such routes."""
    if key is None:
        return []

    async def release(request: Request) -> Response:
        number = read_texts(await request.body(), "release")["release"]
        try:
            loaded = await run_in_threadpool(switch, number)
        except VitrineError as error:
            if isinstance(error, BadQuery):
                raise
            return problem(409, f"the release that answers goes on: {error}")
        return JSONResponse({"release": loaded.number, "encoder": loaded.encoder, "scope": SCOPE})

    async def profile(request: Request) -> Response:
        user_id = check_id(read_texts(await request.body(), "user_id")["user_id"], "user_id")
        return JSONResponse(dataclasses.asdict(await run_in_threadpool(recommender().profile, user_id)))

    return [
        DocumentedRoute(
            "POST", "/admin/release", release, "Have another release answer here", body={JSON: texts("release")},
            key=ADMIN, secret=key,
        ),
        DocumentedRoute(
            "POST", "/users/profile", profile, "What is known of a user", body={JSON: texts("user_id")}, key=ADMIN,
            secret=key,
        ),
    ]  # fmt: skip
