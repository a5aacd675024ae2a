"""Many changes of items in one body: JSON lines, each an operation on one item."""

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from service.errors import BadQuery, Malformed, shown
from service.live.requests.attributes import check_attributes
from service.recommender.query import check_id

LINES = 10_000
OPERATIONS = ("put", "patch", "withdraw")
FIELDS = ("operation", "item_id", "attributes", "images")


@dataclass(frozen=True, slots=True)
class Line:
    """One change. pictures: of `put`, as bytes."""

    operation: str
    item_id: str
    attributes: dict[str, Any]
    pictures: Sequence[bytes]


def parse_line(text: bytes, kinds: Mapping[str, str]) -> Line:
    """{"operation": "put" | "patch" | "withdraw", "item_id": "...", "attributes": {...}, "images": ["base64", ...]}.

    kinds: as for `check_attributes`. Raises BadQuery."""
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Malformed(f"not JSON ({error})") from error
    if not isinstance(values, dict):
        raise Malformed(f"expected a JSON object; got {shown(values)}")
    if unknown := sorted(set(values) - set(FIELDS)):
        raise BadQuery(f"unknown field {shown(unknown[0])}; there are {', '.join(FIELDS)}", field=unknown[0][:80])
    operation = values.get("operation", "put")
    if operation not in OPERATIONS:
        raise BadQuery(f"operation is one of {', '.join(OPERATIONS)}; got {shown(operation)}", field="operation")
    if "item_id" not in values:
        raise BadQuery("item_id is needed", field="item_id")
    item_id = check_item_id(values["item_id"])
    images = values.get("images") or []
    if (operation != "put" and images) or (operation == "withdraw" and values.get("attributes")):
        raise BadQuery(f"{operation} takes no {'images' if images else 'attributes'}", field="operation")
    if operation == "patch" and not values.get("attributes"):
        raise BadQuery("there is no attribute to change", field="attributes")
    return Line(operation, item_id, check_attributes(values.get("attributes") or {}, kinds), _pictures(images))


def check_item_id(item_id: Any) -> str:
    """The id of an item that may come. Raises BadQuery."""
    checked = check_id(item_id, "item_id")
    if checked != checked.strip():
        raise BadQuery(f"item_id begins or ends with a space: {shown(item_id)}", field="item_id")
    return checked


def _pictures(images: Any) -> list[bytes]:
    if not isinstance(images, list) or not all(isinstance(each, str) for each in images):
        raise BadQuery("images must be a list of base64 texts; URLs are not fetched", field="images")
    try:
        return [base64.b64decode(each, validate=True) for each in images]
    except (binascii.Error, ValueError) as error:
        raise BadQuery(f"images must be base64; URLs are not fetched ({error})", field="images") from error
