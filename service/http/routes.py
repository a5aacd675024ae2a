"""The GET routes, mounted beside the BentoML endpoints."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from service.errors import BadQuery
from service.http import openapi
from service.http.middleware.problems import problem_of
from service.recommender.pipeline import Recommender

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


def create_app(
    recommender: Callable[[], Recommender],
    endpoints: Callable[[], dict[str, Any]],
    candidate: Callable[[], dict[str, Any] | None],
    also: Sequence[Route] = (),
    *,
    keys: bool = False,
) -> Starlette:
    """recommender: called once a request, since it is loaded after the routes are made;
    endpoints: the OpenAPI document of the BentoML endpoints, which ours is added to;
    candidate: what is tried beside it, None for nothing; also: more routes; keys: whether the service asks for one."""

    def item(request: Request) -> Response:
        items = recommender().release.items
        row = items.row(request.path_params["item_id"])
        described = items.describe(row)
        return JSONResponse(
            {**described, "popularity": int(items.popularity[row]), "picture": bool(items.pictured[row])}
        )

    def picture(request: Request) -> Response:
        release = recommender().release
        jpeg = release.thumbnails.jpeg(release.items.row(request.path_params["item_id"]))
        return Response(jpeg, media_type="image/jpeg", headers=PICTURE_HEADERS)

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
            Route("/items/{item_id:path}", item, methods=["GET"], name="Title, category, attributes of an item"),
            Route("/release", release, methods=["GET"], name="What is being served"),
            Route("/docs.json", described, methods=["GET"], name="This document"),
            Route("/", page, methods=["GET"], name="Swagger over this document"),
            *also,
        ],
        exception_handlers={BadQuery: _answer_bad_query},
    )
    return app


def _answer_bad_query(request: Request, error: Exception) -> Response:
    assert isinstance(error, BadQuery)
    return problem_of(error)
