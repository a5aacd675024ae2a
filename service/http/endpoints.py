"""The POST endpoints: a body is read, the query answered, the answer written.

They answer before BentoML's own dispatch, which copies the body into a model and out of it, and looks its settings up
to add headers to each answer: a third of a millisecond, an eighth of what a request costs beside the encoder. BentoML
documents the same endpoints, and its clients call them.
"""

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from service import context
from service.errors import BadQuery, Busy
from service.http.documented_route import DocumentedRoute
from service.http.middleware.problems import problem_of
from service.http.schemas import Body, to_json
from service.recommender.recommendation import Recommendation


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One route. answer: called with the query and what ends when the caller has gone."""

    path: str
    body: type[Body[Any]]
    answer: Callable[..., Awaitable[Any]]


class EndpointLayer:
    """ASGI middleware. Answers the endpoints that it is given; all else passes on."""

    def __init__(
        self,
        app: ASGIApp,
        endpoints: Sequence[Endpoint],
        answered: Callable[[str, int], None],
        direct: Sequence[DocumentedRoute] = (),
    ) -> None:
        """answered: called with the path and the status of each answer; direct: mounted routes of which so many are
        asked that they are answered here."""
        self.app, self._endpoints, self._answered, self._direct = app, endpoints, answered, direct

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "POST":
            for endpoint in self._endpoints:
                if endpoint.path == scope["path"]:
                    response = await self._respond(endpoint, Request(scope, receive))
                    await response(scope, receive, send)
                    return
            for route in self._direct:
                if route.path == scope["path"]:
                    response = await route.endpoint(Request(scope, receive))
                    await response(scope, receive, send)
                    return
        await self.app(scope, receive, send)

    async def _respond(self, endpoint: Endpoint, request: Request) -> Response:
        """Turn what is wrong with the query, or too much at the moment, into a problem; count every answer."""
        try:
            response = await self._answer(endpoint, request)
        except ClientDisconnect:  # nobody waits for an answer
            raise
        except Exception:
            self._answered(endpoint.path, HTTPStatus.INTERNAL_SERVER_ERROR)
            raise
        self._answered(endpoint.path, response.status_code)
        return response

    async def _answer(self, endpoint: Endpoint, request: Request) -> Response:
        now = context.current()
        assert now is not None, "RequestContextLayer makes one of each request"
        try:
            try:
                query = await endpoint.body.read(request)
            finally:
                now.began = time.time_ns()  # how long a caller takes to send a body is no part of the answer
            answer = await endpoint.answer(query, request.receive)
            if isinstance(answer, Recommendation):
                now.tier = answer.tier
            return Response(to_json(answer), media_type="application/json")
        except (BadQuery, Busy) as error:
            return problem_of(error)
