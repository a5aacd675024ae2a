"""The GET routes, mounted beside the BentoML endpoints."""

import dataclasses
import re
from collections.abc import Callable, Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from service.encoder.preprocessing import thumbnail
from service.errors import BadQuery, Busy, NotFound, shown
from service.http import openapi
from service.http.documented_route import DocumentedRoute
from service.http.middleware.problems import problem_of
from service.live.api import LiveApi
from service.recommender.catalogue.items import Items
from service.recommender.pipeline import Recommender
from service.recommender.release import Release

# BentoML's own page reports to an analytics service; its copy of Swagger does not
SWAGGER_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>Vitrine</title>
<link rel="stylesheet" href="static_content/swagger-ui.css">
<div id="swagger-ui"></div>
<script src="static_content/swagger-ui-bundle.js"></script>
<script>SwaggerUIBundle({url: "docs.json", dom_id: "#swagger-ui", tryItOutEnabled: true})</script>
</html>
"""

PICTURE_HEADERS = {"Cache-Control": "public, max-age=86400", "X-Content-Type-Options": "nosniff"}
CHANGING_HEADERS = {**PICTURE_HEADERS, "Cache-Control": "no-cache"}
AT_LEAST = "at_least"


def create_app(
    recommender: Callable[[], Recommender],
    endpoints: Callable[[], dict[str, Any]],
    candidate: Callable[[], dict[str, Any] | None],
    also: Sequence[Route] = (),
    *,
    live: Callable[[], LiveApi],
    keeps: bool = False,
    keys: bool = False,
) -> Starlette:
    """recommender: called once a request, since it is loaded after the routes are made;
    endpoints: the OpenAPI document of the BentoML endpoints, which ours is added to;
    candidate: what is tried beside it, None for nothing; also: more routes; live: what keeps changes; keeps: whether
    it does; keys: whether the service asks for one."""

    async def item(request: Request) -> Response:
        await _wait(request, live)
        return JSONResponse(_described(recommender().release.items, request.path_params["item_id"]))

    def picture(request: Request) -> Response:
        return _picture(recommender().release, request.path_params["item_id"], live() if keeps else None)

    def release(request: Request) -> Response:
        described = dataclasses.asdict(recommender().release.manifest)
        described.pop("files")
        described |= {"release": recommender().release.number, "candidate": candidate()}
        return JSONResponse(described)

    def described(request: Request) -> Response:
        return JSONResponse(openapi.document(endpoints(), app.routes, keys=keys))

    def page(request: Request) -> Response:
        return HTMLResponse(SWAGGER_PAGE)

    app = Starlette(
        routes=[
            # the longer path first: an item id may hold slashes
            Route("/items/{item_id:path}/picture", picture, methods=["GET"], name="Picture of an item (JPEG)"),
            DocumentedRoute(
                "GET", "/items/{item_id:path}", item, "Title, category, attributes of an item",
                parameters={AT_LEAST: {"type": "integer", "description": "wait until this change is there"}},
            ),
            Route("/release", release, methods=["GET"], name="What is being served"),
            Route("/docs.json", described, methods=["GET"], name="This document"),
            Route("/", page, methods=["GET"], name="Swagger over this document"),
            *also,
        ],
        exception_handlers={BadQuery: _answer_problem, Busy: _answer_problem},
    )  # fmt: skip
    return app


def _described(items: Items, item_id: str) -> dict[str, Any]:
    row = items.row(item_id)
    described = items.describe(row)
    return {**described, "popularity": int(items.popularity[row]), "picture": bool(items.pictured[row])}


def _picture(release: Release, item_id: str, live: LiveApi | None) -> Response:
    row = release.items.row(item_id)
    if not release.items.pictured[row]:
        raise NotFound("this item has no picture", field="item_id")
    changed = None if live is None else live.picture(item_id)
    if changed is None:
        return Response(release.thumbnails.jpeg(row), media_type="image/jpeg", headers=PICTURE_HEADERS)
    return Response(thumbnail(changed), media_type="image/jpeg", headers=CHANGING_HEADERS)


async def _wait(request: Request, live: Callable[[], LiveApi]) -> None:
    """Until the change that the caller has been told of is there. Raises BadQuery, Busy."""
    if unknown := [name for name in request.query_params if name != AT_LEAST]:
        raise BadQuery(f"unknown query parameter {shown(unknown[0])}; there is {AT_LEAST}", field=unknown[0][:80])
    if (said := request.query_params.get(AT_LEAST)) is None:
        return
    if not re.fullmatch("[0-9]{1,18}", said, re.ASCII):
        raise BadQuery(f"{AT_LEAST} is the `sequence` of a change, a whole number; got {shown(said)}", field=AT_LEAST)
    await live().wait_for(int(said))


def _answer_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, BadQuery | Busy)
    return problem_of(error)
