"""What wrong changes, events and requests are told, and that nothing of them is kept."""

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.live import ADMIN, CATALOGUE, assert_problem, put

JSON_TYPE = {"content-type": "application/json"}


def form(photo: bytes, *parts: tuple[str, Any]) -> dict[str, Any]:
    """A multipart body with one picture, and more."""
    return {"files": [("image", ("p.jpg", photo, "image/jpeg")), *parts]}


# what is sent as attributes, what is said of it, and of which part
ATTRIBUTES: dict[str, tuple[Any, str, str]] = {
    "a list": ([1], "attributes must be a JSON object", "attributes"),
    "a number of 400 digits": ({"price": 10**400}, "is a number in this catalogue", "price"),
    "a text for a number": ({"price": "7"}, "'price' is a number in this catalogue; got '7'", "price"),
    "a number for a text": ({"colour": 7}, "'colour' is a text in this catalogue; got 7", "colour"),
    "a text for true": ({"available": "yes"}, "is true or false in this catalogue", "available"),
    "an object for a text": ({"fit": {"a": 1}}, "is a text", "fit"),
    "a number for the title": ({"title": 7}, "'title' is a text", "title"),
    "a title of a book": ({"title": "x" * 2001}, "2000 characters at most", "title"),
    "a hundred and one tags": ({"tags": ["x"] * 101}, "100 texts", "tags"),
    "a name that is ours": ({"item_id": "f"}, "the id stands in the path", "item_id"),
    "a name with _": ({"_popularity": 9}, "does not begin with _", "attributes"),
    "a name of 101 characters": ({"x" * 101: 9}, "1 to 100 characters", "attributes"),
    "201 attributes": ({f"a{n}": 1 for n in range(201)}, "at most 200 attributes", "attributes"),
}
EVENT = {"user_id": "u", "item_id": "1"}
MANY: list[Any] = [{}] * 5001
# what is sent as an event, what is said of it, and of which part
EVENTS: dict[str, tuple[Any, str, str]] = {
    "none": ({"events": []}, "a list of 1 to 5000", "events"),
    "5,001": ({"events": MANY}, "a list of 1 to 5000", "events"),
    "one that is a text": ({"events": ["view"]}, "events[0] must be an object", "events"),
    "a text": ("view", "expected an event", "events"),
    "more beside them": ({"events": [{}], "user_id": "u"}, "beside `events` there is nothing else", "events"),
    "without a user": ({"item_id": "1"}, "events[0]: expected a user_id or a session_id", "events"),
    "of two users": ({**EVENT, "session_id": "s"}, "not both", "events"),
    "without an item": ({"user_id": "u"}, "item_id is needed", "events"),
    "with another field": ({**EVENT, "time": 1}, "unknown field 'time'", "events"),
    "that nobody knows": ({**EVENT, "event": "stole"}, "the event 'stole' is not known", "events"),
    "that is a number": ({**EVENT, "event": 1}, "the event 1 is not known", "events"),
    "a rating of nothing": ({**EVENT, "event": "rating"}, "a rating needs a value", "events"),
    "a value that is a text": ({**EVENT, "value": "7"}, "value must be a number", "events"),
    "of the year 2286": ({**EVENT, "timestamp": 1e10}, "not in the future", "events"),
    "of 1969": ({**EVENT, "timestamp": -1}, "seconds since 1970", "events"),
    "with the character of number 0": ({**EVENT, "item_id": "a\0"}, "number 0", "events[0].item_id"),
    "of an empty session": ({"session_id": " ", "item_id": "1"}, "1 to 512 characters", "events[0].session_id"),
}
PUT = ("PUT", "/items/e")
# a request, its status, what is said of it, and of which part; photo -> what httpx takes beside method and path
REQUESTS: dict[str, tuple[str, str, Callable[[bytes], dict[str, Any]], int, str, str | None]] = {
    "a text for a picture": (*PUT, lambda photo: form(b"hello, I am a picture"), 415, "JPEG", "image"),
    "a picture cut short": (*PUT, lambda photo: form(photo[:2000]), 422, "", "image"),
    "a URL for a picture": (
        *PUT, lambda photo: {"files": {"image": (None, "http://127.0.0.1:1/a.jpg")}}, 422, "URLs", "image",
    ),
    "eleven pictures": (
        *PUT, lambda photo: {"files": [("image", ("p.jpg", photo))] * 11}, 422, "10 pictures at most; got 11", "image",
    ),
    "another part": (*PUT, lambda photo: form(photo, ("price", (None, "7"))), 422, "one part `attributes`", "price"),
    "attributes that are no JSON": (
        *PUT, lambda photo: form(photo, ("attributes", (None, "{"))), 400, "attributes", "attributes",
    ),
    "another content type": (
        *PUT, lambda photo: {"content": b"<a/>", "headers": {"content-type": "text/xml"}}, 415, "expected", None,
    ),
    "a body cut short": (*PUT, lambda photo: {"content": b"{", "headers": JSON_TYPE}, 400, "JSON", None),
    "NaN": (*PUT, lambda photo: {"content": b'{"price": NaN}', "headers": JSON_TYPE}, 400, "", None),
    "half a character": (
        *PUT, lambda photo: {"content": b'{"colour": "\\ud800"}', "headers": JSON_TYPE}, 422, "whole", "colour",
    ),
    "half a character in a name": (
        *PUT, lambda photo: {"content": b'{"\\ud800": 1}', "headers": JSON_TYPE}, 422, "attribute's name", "attributes",
    ),
    "a user of half a character": (
        "POST", "/events", lambda photo: {"content": b'{"user_id": "\\ud800", "item_id": "1"}', "headers": JSON_TYPE},
        422, "user_id is not valid text", "events[0].user_id",
    ),
    "an id with a space at its end": ("PUT", "/items/e%20", lambda photo: {"json": {}}, 422, "with a space", "item_id"),
    "an id of 513 characters": (
        "PUT", f"/items/{'x' * 513}", lambda photo: {"json": {}}, 422, "1 to 512 characters", "item_id",
    ),
    "an id with the character of number 0": (
        "PUT", "/items/a%00b", lambda photo: {"json": {}}, 422, "number 0", "item_id",
    ),
    "a patch of nothing": (
        "PATCH", "/items/0001", lambda photo: {"json": {}}, 422, "there is no attribute to change", "attributes",
    ),
    "a patch of no item": (
        "PATCH", "/items/none", lambda photo: {"json": {"price": 1}}, 404, "there is no item 'none'", "item_id",
    ),
    "a withdrawal of no item": ("DELETE", "/items/none", lambda photo: {}, 404, "there is no item 'none'", "item_id"),
    "too many lines": ("POST", "/items/batch", lambda photo: {"content": b"{}\n" * 10_001}, 422, "10000 lines", None),
    "an empty Idempotency-Key": (
        *PUT, lambda photo: {"json": {}, "headers": {"Idempotency-Key": ""}}, 422, "got 0", "Idempotency-Key",
    ),
    "a long Idempotency-Key": (
        "POST", "/events", lambda photo: {"json": EVENT, "headers": {"Idempotency-Key": "k" * 256}}, 422,
        "1 to 255 characters; got 256", "Idempotency-Key",
    ),
    "a link without a user": (
        "POST", "/users/link", lambda photo: {"json": {"session_id": "s"}}, 400, '"user_id": "..."}', "user_id",
    ),
    "an erasure of a number": (
        "POST", "/users/erase", lambda photo: {"json": {"user_id": 7}}, 400, 'expected {"user_id": "..."}', "user_id",
    ),
    "an export of nobody": (
        "POST", "/users/export", lambda photo: {"json": {"user_id": ""}}, 422, "1 to 512 characters", "user_id",
    ),
    "at_least as a text": ("GET", "/items/0001?at_least=x", lambda photo: {}, 422, "got 'x'", "at_least"),
    "at_least below zero": ("GET", "/items/0001?at_least=-1", lambda photo: {}, 422, "a whole number", "at_least"),
    "at_least of other digits": (
        "GET", "/items/0001?at_least=\N{ARABIC-INDIC DIGIT ONE}", lambda photo: {}, 422, "a whole number", "at_least",
    ),
    "another parameter": ("GET", "/items/0001?at_last=1", lambda photo: {}, 422, "unknown query param", "at_last"),
}  # fmt: skip


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_what_is_wrong_with_attributes_is_named(client: httpx.Client, name: str) -> None:
    """By what was expected and what was found, in a request of its own and in a line of many; nothing is kept."""
    attributes, said, field = ATTRIBUTES[name]
    assert_problem(put(client, "e", attributes), 422, said, field)
    line = json.dumps({"operation": "put", "item_id": "e", "attributes": attributes})
    reply = client.post("/items/batch", content=line, headers=CATALOGUE).json()
    assert said in reply["error"]
    assert reply["field"] == field
    assert client.get("/items/e").status_code == 404


@pytest.mark.parametrize("name", EVENTS)
def test_what_is_wrong_with_events_is_named(client: httpx.Client, name: str) -> None:
    """By its place among them, what was expected and what was found."""
    sent, said, field = EVENTS[name]
    assert_problem(client.post("/events", json=sent), 422, said, field)


@pytest.mark.parametrize("name", REQUESTS)
def test_what_is_wrong_with_a_request_is_named(client: httpx.Client, photo: bytes, name: str) -> None:
    """By what was expected, what was found, and the part of the request that it is in; nothing is kept."""
    method, path, make, status, said, field = REQUESTS[name]
    sent = make(photo)
    headers = {**CATALOGUE, **ADMIN, **sent.pop("headers", {})}
    assert_problem(client.request(method, path, headers=headers, **sent), status, said, field)
    assert client.get("/items/e").status_code == 404


@pytest.mark.parametrize(
    ("method", "path", "key"),
    [
        ("PUT", "/items/k", "catalogue"),
        ("PATCH", "/items/0001", "catalogue"),
        ("DELETE", "/items/0001", "catalogue"),
        ("POST", "/items/batch", "catalogue"),
        ("POST", "/users/erase", "admin"),
        ("POST", "/users/export", "admin"),
    ],
)
def test_each_key_opens_its_own_routes(client: httpx.Client, method: str, path: str, key: str) -> None:
    """Without it, with a wrong one, and with the other key nothing happens."""
    other = ADMIN if key == "catalogue" else CATALOGUE
    name = {"catalogue": "X-Catalogue-Key", "admin": "X-Admin-Key"}[key]
    for headers in ({}, {name: "wrong-key"}, other, {name: next(iter(other.values()))}):
        response = client.request(method, path, json={"user_id": "u"}, headers=headers)
        assert_problem(response, 401, f"`{name}: KEY`")
    assert client.get("/items/0001").status_code == 200
    assert client.get("/items/k").status_code == 404
