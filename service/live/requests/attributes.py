"""The attributes of an item, as somebody sends them: what a column may hold, and whether a value is of its kind."""

from collections.abc import Mapping
from typing import Any

from service.errors import BadQuery, half_character, is_number, shown

RESERVED = ("item_id", "image", "images")
MAX_NAME, MAX_TEXT, MAX_VALUES, MAX_COLUMNS = 100, 2000, 100, 200
EXPECTED = {
    "number": "a number",
    "boolean": "true or false",
    "category": "a text",
    "tags": "a list of texts",
    "text": "a text",
}


def kind_of(value: Any) -> str:
    """The kind of a column whose first value this is: number | boolean | category | tags."""
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number"
    return "tags" if isinstance(value, list) else "category"


def fits(value: Any, kind: str) -> bool:
    """Whether a value may stand in a column of this kind."""
    if kind == "number":
        return is_number(value)
    if kind == "boolean":
        return isinstance(value, bool)
    if kind == "tags":
        return isinstance(value, list) and all(isinstance(each, str) for each in value)
    return isinstance(value, str)


def check_attributes(values: Any, kinds: Mapping[str, str]) -> dict[str, Any]:
    """Title, category and attributes, by name; null where one is to be taken away. A text of a column of tags is one
    tag, or several, `a|b`. kinds: of the columns that are there already; others are made by their first value.

    Raises BadQuery."""
    if not isinstance(values, Mapping):
        raise BadQuery(f"attributes must be a JSON object; got {shown(values)}", field="attributes")
    if len(values) > MAX_COLUMNS:
        raise BadQuery(f"at most {MAX_COLUMNS} attributes are kept; got {len(values)}", field="attributes")
    return {_name(name): _value(name, value, kinds) for name, value in values.items()}


def _name(name: str) -> str:
    if name in RESERVED:
        raise BadQuery(f"{name} is no attribute: the id stands in the path, pictures are files", field=name)
    if not name.strip() or len(name) > MAX_NAME or name.startswith("_") or half_character(name):
        raise BadQuery(
            f"an attribute's name has 1 to {MAX_NAME} characters and does not begin with _; got {shown(name)}",
            field="attributes",
        )
    return name


def _value(name: str, value: Any, kinds: Mapping[str, str]) -> Any:
    if value is None:
        return None
    kind = "text" if name == "title" else kinds.get(name, "category" if name == "category" else kind_of(value))
    if kind == "tags" and isinstance(value, str):
        value = [part.strip() for part in value.split("|") if part.strip()]
    if not fits(value, kind):
        raise BadQuery(f"{shown(name)} is {EXPECTED[kind]} in this catalogue; got {shown(value)}", field=name[:80])
    texts = value if isinstance(value, list) else [value] if isinstance(value, str) else []
    if len(texts) > MAX_VALUES or any(len(text) > MAX_TEXT or half_character(text) for text in texts):
        raise BadQuery(
            f"{shown(name)} may have {MAX_VALUES} texts of {MAX_TEXT} characters at most, all of whole characters",
            field=name[:80],
        )
    return value.strip() if isinstance(value, str) else value
