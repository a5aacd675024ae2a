"""The OpenAPI document: BentoML's of the POST routes, put right, and that of the mounted routes.

BentoML knows multipart bodies alone, drops null from what may be null, and describes itself in place of the service.
"""

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

from pydantic import BaseModel
from starlette.routing import Route

from service.http.documented_route import KEY_HEADERS, DocumentedRoute
from service.http.middleware.api_keys import OPEN_PATHS
from service.http.schemas import EmbeddingOut, RecommendationOut

DESCRIPTION = (
    "A photo in, and the items of the catalogue that look like it out, ranked for the user, with the reasons. Bodies "
    "are JSON, or multipart where a photo is sent; each part of a multipart body but the photo is JSON."
)
UNUSED = (
    "TaskStatusResponse",
    "InvalidArgument",
    "NotFound",
    "InternalServerError",
    "RecommendationOutIODescriptor",
    "EmbeddingOutIODescriptor",
)  # BentoML's own answers
ANSWERS: dict[str, type[BaseModel]] = {
    "/recommend": RecommendationOut,
    "/similar": RecommendationOut,
    "/embed": EmbeddingOut,
}
TEXT = {"type": "string"}
PROBLEM = {
    "type": "object",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": TEXT,
        "title": TEXT,
        "status": {"type": "integer"},
        "detail": TEXT,
        "field": {**TEXT, "description": "which part of the request is at fault"},
        "trace_id": {**TEXT, "description": "of the request, in the log and in traces"},
    },
}
SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "an API key"},
    "key": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "the same, in a header of its own"},
}
OTHER_KEYS = {name: {"type": "apiKey", "in": "header", "name": header} for name, header in KEY_HEADERS.items()}
_PROBLEM = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
_INFERENCE_ERROR = {"application/json": {"schema": {"type": "object", "properties": {"error": TEXT}}}}


def document(endpoints: dict[str, Any], routes: Sequence[Any], *, keys: bool) -> dict[str, Any]:
    """endpoints: BentoML's document; routes: those that are mounted; keys: whether the service asks for a key."""
    made = deepcopy(endpoints)
    paths = {path: said for path, said in made["paths"].items() if path != "/metrics"}  # which has a port of its own
    schemas = {name: _nullable(said) for name, said in made["components"]["schemas"].items() if name not in UNUSED}
    for operations in paths.values():
        for operation in operations.values():
            _take_json(operation)
    for path, model in ANSWERS.items():
        answer = model.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas |= answer.pop("$defs", {})
        for operation in paths[path].values():
            content = {"application/json": {"schema": answer}}
            operation["responses"] = {"200": {"description": "The answer", "content": content}}
    asked: set[str] = set()  # keys beside that of the service
    for route in routes:
        path = route.path.replace(":path", "").replace(":int", "")
        operations = {method.lower(): _mounted(route, path) for method in route.methods if method != "HEAD"}
        paths[path] = paths.get(path, {}) | operations
    for path, operations in paths.items():
        for operation in operations.values():
            _refuse(operation, _INFERENCE_ERROR if path.startswith("/v2") else _PROBLEM)
            key = operation.pop("x-key", None)
            asked |= {key} if key else set()
            operation["security"] = _security(path, keys, key)
    schemes = (SCHEMES if keys else {}) | {name: said for name, said in OTHER_KEYS.items() if name in asked}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Vitrine", "version": "1", "description": DESCRIPTION},
        "servers": made["servers"],
        "paths": paths,
        "components": {"schemas": {**schemas, "Problem": PROBLEM}, "securitySchemes": schemes},
    }


def _mounted(route: Route, path: str) -> dict[str, Any]:
    described: dict[str, Any] = {
        "tags": ["Open Inference Protocol" if path.startswith("/v2") else "Catalogue and release"],
        "summary": route.name,
        "parameters": [
            {"name": name, "in": "path", "required": True, "schema": TEXT} for name in route.param_convertors
        ],
        "responses": {"200": {"description": "OK"}},
    }
    if not isinstance(route, DocumentedRoute):
        return described
    described["x-key"] = route.key
    described["parameters"] += [
        {"name": name, "in": "query", "schema": schema} for name, schema in route.parameters.items()
    ]
    if route.body is not None:
        content = {kind: {"schema": schema} for kind, schema in route.body.items()}
        described["requestBody"] = {"required": True, "content": content}
    return described


def _take_json(operation: dict[str, Any]) -> None:
    """A body without a photo may be JSON, where what is absent may be null as well."""
    content = operation.get("requestBody", {}).get("content", {})
    multipart = content.get("multipart/form-data")
    if multipart is None:
        return
    fields = multipart["schema"]["properties"]
    multipart["encoding"] = {name: said for name, said in multipart.get("encoding", {}).items() if name in fields}
    plain = {name: said for name, said in fields.items() if name != "image"}
    if "image" in multipart["schema"].get("required", ()) or fields["image"]["description"].startswith("needed"):
        return
    content["application/json"] = {"schema": _nullable({**multipart["schema"], "properties": plain})}


def _nullable(schema: dict[str, Any]) -> dict[str, Any]:
    """What has null for its default may be null."""
    fields = {name: _or_null(said) for name, said in schema.get("properties", {}).items()}
    return {**schema, "properties": fields} if fields else schema


def _or_null(said: dict[str, Any]) -> dict[str, Any]:
    if said.get("default", 0) is not None or "anyOf" in said:
        return said
    return {
        "anyOf": [{key: value for key, value in said.items() if key != "default"}, {"type": "null"}],
        "default": None,
    }


def _refuse(operation: dict[str, Any], content: dict[str, Any]) -> None:
    kept = {code: answer for code, answer in operation.get("responses", {}).items() if str(code) < "400"}
    kept["4XX"] = {"description": "What was expected, what came, what to do", "content": content}
    operation["responses"] = kept


def _security(path: str, keys: bool, other: str | None) -> list[dict[str, list[str]]]:
    """other: the key that a route asks for beside that of the service."""
    if other is not None:
        return [{other: [], name: []} for name in SCHEMES] if keys else [{other: []}]
    return [{name: []} for name in SCHEMES] if keys and path not in OPEN_PATHS else []
