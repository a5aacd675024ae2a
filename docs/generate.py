"""Writes the parts of the pages that follow from the code: `python -m docs.generate`, or `make docs`.

A page marks each such part by its name, and everything around it is written by hand:

    <!-- settings: written by python -m docs.generate -->
    | variable | ...
    <!-- end of settings -->
"""

import argparse
import json
import os
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from prometheus_client.metrics import MetricWrapperBase

from service.http.documented_route import KEY_HEADERS
from service.observability.metrics import Metrics
from service.settings import PREFIX, Settings

FOLDER = Path(__file__).parent
PART = re.compile(
    r"(<!-- (?P<name>\S+): written by python -m docs\.generate -->\n).*?(<!-- end of (?P=name) -->)", re.DOTALL
)
KINDS = {
    "string": "text", "integer": "whole number", "number": "number", "boolean": "`true`, `false`", "array": "list",
    "object": "object",
}  # fmt: skip
BOUNDS = (
    ("minimum", "from {}"), ("exclusiveMinimum", "above {}"), ("maximum", "to {}"), ("exclusiveMaximum", "below {}"),
    ("minLength", "{} characters or more"),
)  # fmt: skip
FORMATS = {"path": "path", "binary": "file"}
BAR = r"\|"  # within a cell
FIELD = ("values", "default", "what it is")


def write_settings() -> str:
    """A row for each setting."""
    described = Settings.model_json_schema()["properties"]
    rows = ((f"`{PREFIX}{name.upper()}`", *_field(field)) for name, field in described.items())
    return _table(("variable", *FIELD), rows)


def write_metrics() -> str:
    """A row for each metric of the service, under the name that Prometheus reads."""
    rows = []
    for metric in vars(Metrics()).values():
        if isinstance(metric, MetricWrapperBase):
            (family,) = metric.describe()
            name = family.name + ("_total" if family.type == "counter" else "")
            labels = ", ".join(f"`{label}`" for label in metric._labelnames)
            rows.append((f"`{name}`", family.type, labels, family.documentation))
    return _table(("metric", "type", "labels", "what it says"), rows)


def write_routes(document: Mapping[str, Any]) -> str:
    """A row for each route of an OpenAPI document."""
    rows = (
        (f"`{method.upper()} {path}`", _what_it_does(operation), _key_of(operation))
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    )
    return _table(("route", "what it does", "needs"), rows)


def write_fields(document: Mapping[str, Any], route: str) -> str:
    """A row for each field of the body that a POST route takes."""
    content = document["paths"][route]["post"]["requestBody"]["content"]
    fields = content["multipart/form-data"]["schema"]["properties"]
    return _table(("field", *FIELD), ((f"`{name}`", *_field(field)) for name, field in fields.items()))


def read_openapi() -> dict[str, Any]:
    """The service's own OpenAPI document, with every route: those for an administrator too."""
    for name in [name for name in os.environ if name.startswith(PREFIX)]:
        del os.environ[name]  # the pages describe the service as it is without settings
    for key in ("ADMIN_KEY", "CATALOGUE_KEY"):  # without which their routes are not there
        os.environ[f"{PREFIX}{key}"] = "any that is long enough"
    from starlette.testclient import TestClient

    from service import app  # reads the settings when it is imported

    answered = TestClient(app.asgi()).get("/docs.json")  # not started: the document needs no release
    answered.raise_for_status()
    document: dict[str, Any] = answered.json()
    return document


def fill(page: str, parts: Mapping[str, str]) -> str:
    """A page with each marked part as the code has it now. Raises KeyError for a mark that nothing writes."""
    return PART.sub(lambda found: found[1] + parts[found["name"]] + found[3], page)


def main() -> None:
    """Write the pages; with --check only name those that are not as the code is."""
    parser = argparse.ArgumentParser(prog="python -m docs.generate", description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 where a page would change")
    asked = parser.parse_args()
    document = read_openapi()
    parts = {
        "settings": write_settings(),
        "metrics": write_metrics(),
        "routes": write_routes(document),
        **{f"fields-of-{route}": write_fields(document, f"/{route}") for route in ("recommend", "similar", "embed")},
    }
    stale = []
    for path in sorted(FOLDER.glob("*.md")):
        page = path.read_text()
        filled = fill(page, parts)
        if filled != page:
            stale.append(path.name)
            if not asked.check:
                path.write_text(filled)
    if asked.check and stale:
        sys.exit(f"not as the code is: {', '.join(stale)}; run: make docs")


def _field(schema: Mapping[str, Any]) -> tuple[str, str, str]:
    """Values, default and description of a field of a JSON schema."""
    default = schema.get("default")
    text = default if isinstance(default, str) else json.dumps(default)
    return _values(schema), "" if default in (None, [], {}) else f"`{text}`", schema.get("description", "")


def _values(schema: Mapping[str, Any]) -> str:
    """What a field may hold, in words."""
    (kind,) = (kind for kind in schema.get("anyOf", [schema]) if kind.get("type") != "null")
    if "enum" in kind:
        return ", ".join(f"`{value}`" for value in kind["enum"])
    if kind.get("format") in FORMATS:
        return FORMATS[kind["format"]]
    bounds = [words.format(f"{kind[key]:g}") for key, words in BOUNDS if key in kind]
    return " ".join([KINDS[kind["type"]], *bounds])


def _what_it_does(operation: Mapping[str, Any]) -> str:
    said = operation.get("summary") or operation["description"]
    return re.sub("<.*?>", "", said).split(". ")[0].removesuffix(".")


def _key_of(operation: Mapping[str, Any]) -> str:
    asked = {name for each in operation["security"] for name in each}
    return "".join(f"`{header}`" for name, header in KEY_HEADERS.items() if name in asked)


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', BAR) for cell in line)} |\n" for line in lines)


if __name__ == "__main__":
    main()
