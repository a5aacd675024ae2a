"""A mounted route that says of itself what the OpenAPI document needs to know."""

from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from service.errors import BadQuery, Busy
from service.http.middleware.api_keys import holds_key
from service.http.middleware.problems import problem, problem_of

ADMIN, CATALOGUE = "admin", "catalogue"
KEY_HEADERS = {ADMIN: "X-Admin-Key", CATALOGUE: "X-Catalogue-Key"}

Answer = Callable[[Request], Awaitable[Response]]
Answered = Callable[[str, int], None]  # (route, status)


class DocumentedRoute(Route):
    """One path and method."""

    def __init__(
        self,
        method: str,
        path: str,
        answer: Answer,
        summary: str,
        *,
        body: Mapping[str, Any] | None = None,
        parameters: Mapping[str, Any] | None = None,
        key: str | None = None,
        secret: str | None = None,
        answered: Answered = lambda route, status: None,
    ) -> None:
        """body: content type -> schema; parameters: of the query, name -> schema; key: ADMIN or CATALOGUE, where it
        asks for such a key beside that of the service, whose value is `secret`; answered: told the path and the status
        of each answer."""
        super().__init__(path, _guarded(answer, path, key, secret, answered), methods=[method], name=summary)
        self.body, self.parameters, self.key = body, parameters or {}, key


def _guarded(answer: Answer, path: str, key: str | None, secret: str | None, answered: Answered) -> Answer:
    name = path.replace(":path", "")

    async def guarded(request: Request) -> Response:
        try:
            if key is not None and not holds_key(
                request.scope["headers"], (secret or "").encode(), KEY_HEADERS[key].lower().encode()
            ):
                response = problem(HTTPStatus.UNAUTHORIZED, f"send the {key} key: `{KEY_HEADERS[key]}: KEY`")
            else:
                response = await answer(request)
        except (BadQuery, Busy) as error:
            response = problem_of(error)
        except Exception:
            answered(name, HTTPStatus.INTERNAL_SERVER_ERROR)
            raise
        answered(name, response.status_code)
        return response

    return guarded
