"""Changes of items, events, sessions and erasure over HTTP: what each request gives, and what wrong ones are told."""

import base64
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.recommender.user_keys import DEFAULT_USER_KEY, hash_user
from tests.live import ADMIN, CATALOGUE, export, items_of, keeping, put
from tests.processes import Service, serve, wait_until

JSON_TYPE = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the store lies."""
    return tmp_path_factory.mktemp("live")


@pytest.fixture(scope="module")
def live(release_folder: Path, folder: Path) -> Iterator[Service]:
    """A service with a store and both keys."""
    settings = {**keeping(str(folder / "store" / "live.db")), "VITRINE_MAX_PIXELS": "4000000"}
    with serve(release_folder, folder / "home", settings) as started:
        yield started
        assert "Traceback" not in started.log.read_text()


@pytest.fixture
def client(live: Service) -> httpx.Client:
    """One who may do everything."""
    return live.http


def assert_problem(response: httpx.Response, status: int, said: str, field: str | None = None) -> None:
    """An error says what is wrong, and with what."""
    assert response.status_code == status, response.text
    body = response.json()
    assert said in body["detail"], body
    assert body.get("field") == field, body
    assert len(body["detail"]) < 600


def test_an_item_that_is_put_is_in_answers_once_the_reply_is_there(client: httpx.Client, photo: bytes) -> None:
    """By its picture, by a filter, and under its own address, with its picture."""
    reply = put(client, "new/1", {"category": "dress", "price": 7, "title": "New dress"}, photo)
    assert reply.status_code == 200, reply.text
    assert reply.json()["item_id"] == "new/1"
    photo_file = {"image": ("p.jpg", photo, "image/jpeg")}
    assert "new/1" in items_of(client.post("/similar", files=photo_file, data={"k": "3"}))
    assert "new/1" in items_of(client.post("/recommend", json={"filter": {"price": {"max": 7}}}))
    said = client.get("/items/new/1", params={"at_least": reply.json()["sequence"]}).json()
    assert (said["title"], said["attributes"]["price"], said["picture"]) == ("New dress", 7.0, True)
    picture = client.get("/items/new/1/picture")
    assert picture.content.startswith(b"\xff\xd8")
    assert picture.headers["cache-control"] == "no-cache"


def test_a_patch_changes_what_it_names(client: httpx.Client) -> None:
    """Of an item of the release as well."""
    before = client.get("/items/0010").json()
    sequence = client.patch("/items/0010", json={"price": 3.5}, headers=CATALOGUE).json()["sequence"]
    assert client.get("/items/0010").json()["attributes"] == before["attributes"] | {"price": 3.5}
    assert items_of(client.post("/recommend", json={"filter": {"price": {"max": 4}}})) == ["0010"]
    assert client.patch("/items/0010", json={"price": None}, headers=CATALOGUE).json()["sequence"] > sequence
    assert client.get("/items/0010").json()["attributes"]["price"] is None


def test_a_withdrawn_item_is_not_there_any_more(client: httpx.Client, photo: bytes) -> None:
    """By no route; it can be put anew, and begins without pictures."""
    put(client, "w", {"category": "hat"}, photo)
    assert client.delete("/items/w", headers=CATALOGUE).status_code == 200
    assert_problem(client.get("/items/w"), 404, "holds no item 'w'", "item_id")
    assert_problem(client.get("/items/w/picture"), 404, "holds no item 'w'", "item_id")
    assert_problem(client.post("/similar", json={"item_id": "w"}), 404, "holds no item 'w'", "item_id")
    assert_problem(client.delete("/items/w", headers=CATALOGUE), 404, "it was withdrawn", "item_id")
    assert_problem(
        client.patch("/items/w", json={"a": 1}, headers=CATALOGUE), 404, "PUT /items/{id} makes one", "item_id"
    )
    put(client, "w", {"category": "hat"})
    assert client.get("/items/w").json()["picture"] is False


def test_many_changes_come_as_lines(client: httpx.Client, photo: bytes) -> None:
    """Each line has its reply, in order; what is wrong with one harms no other."""
    lines = [
        {"item_id": "l1", "attributes": {"category": "coat", "price": 1}, "images": [base64.b64encode(photo).decode()]},
        {"operation": "patch", "item_id": "l1", "attributes": {"price": 2}},
        {"operation": "patch", "item_id": "nothing", "attributes": {"price": 2}},
        {"operation": "put", "item_id": "l2", "attributes": {"price": "dear"}},
        {"operation": "withdraw", "item_id": "0011"},
        {"operation": "sell", "item_id": "l2"},
        {"operation": "put", "item_id": "l3", "images": ["http://127.0.0.1:1/a.jpg"]},
        {"operation": "put", "item_id": "l4", "images": [base64.b64encode(b"hello").decode()]},
        {"operation": "withdraw", "item_id": "l1", "attributes": {"price": 2}},
        {"operation": "put", "item_id": "l5", "colour": "red"},
        {"operation": "put"},
        {"operation": "put", "item_id": " l6 "},
    ]
    body = b"\n".join([*(json.dumps(line).encode() for line in lines), b"{", b"[1]", b""])
    response = client.post("/items/batch", content=body, headers=CATALOGUE)
    assert response.headers["content-type"] == "application/x-ndjson"
    replies = [json.loads(line) for line in response.text.splitlines()]
    assert [reply["line"] for reply in replies] == list(range(1, len(lines) + 3))
    assert [at for at, reply in enumerate(replies) if "sequence" in reply] == [0, 1, 4]
    said = {at: reply["error"] for at, reply in enumerate(replies) if "error" in reply}
    for at, part in {
        2: "there is no item 'nothing'", 3: "is a number in this catalogue", 5: "operation is one of put, patch",
        6: "URLs are not fetched", 7: "JPEG", 8: "withdraw takes no attributes", 9: "unknown field 'colour'",
        10: "item_id is needed", 11: "begins or ends with a space", 12: "not JSON", 13: "expected a JSON object",
    }.items():  # fmt: skip
        assert part in said[at], said[at]
    assert client.get("/items/l1").json()["attributes"]["price"] == 2
    assert client.get("/items/0011").status_code == client.get("/items/l4").status_code == 404


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


def test_a_change_that_never_comes_is_not_waited_for_long(client: httpx.Client) -> None:
    """at_least beyond the last number: 503 after some seconds, and when to ask again."""
    began = time.monotonic()
    response = client.get("/items/0001", params={"at_least": 10**12})
    assert_problem(response, 503, "change 1000000000000 is not there within 5 s")
    assert response.headers["retry-after"] == "1"
    assert 4 < time.monotonic() - began < 15


def test_a_request_with_an_idempotency_key_may_be_sent_again(client: httpx.Client, photo: bytes) -> None:
    """Same reply, nothing twice; also a form, whose bytes are others each time; with another content it is refused."""
    event = {"user_id": "again", "item_id": "0004"}
    first, second = (client.post("/events", json=event, headers={"Idempotency-Key": "e1"}) for _ in range(2))
    assert first.json() == second.json()
    assert len(export(client, "again")["events"]) == 1
    other = client.post("/events", json={**event, "item_id": "0005"}, headers={"Idempotency-Key": "e1"})
    assert_problem(other, 422, "came before with another request", "Idempotency-Key")
    one, two = (put(client, "i", {"price": 1}, photo, **{"Idempotency-Key": "p1"}) for _ in range(2))
    assert one.status_code == 200
    assert one.json() == two.json()
    assert_problem(
        put(client, "i", {"price": 2}, photo, **{"Idempotency-Key": "p1"}), 422, "another request", "Idempotency-Key"
    )
    gone = [client.delete("/items/i", headers={**CATALOGUE, "Idempotency-Key": "d1"}) for _ in range(2)]
    assert [each.status_code for each in gone] == [200, 200]
    lines = b'{"item_id": "b1"}\n{"operation": "withdraw", "item_id": "b1"}\n'
    replies = [
        client.post("/items/batch", content=lines, headers={**CATALOGUE, "Idempotency-Key": "b"}) for _ in range(2)
    ]
    assert replies[0].text == replies[1].text
    assert "error" not in replies[1].text


def test_events_make_a_user_known_within_a_second(client: httpx.Client) -> None:
    """One or many, in the words of shops' logs; those that say nothing of liking are counted apart."""
    assert client.post("/recommend", json={"user_id": "fresh"}).json()["tier"] == "popular"
    assert (
        client.post("/events", json={"user_id": "fresh", "item_id": "0004", "event": "add_to_cart"}).status_code == 200
    )
    waited = wait_until(
        lambda: client.post("/recommend", json={"user_id": "fresh"}).json()["tier"] == "taste", seconds=20
    )
    assert waited < 1
    many = [{"user_id": "fresh", "item_id": "0016", "event": name} for name in ("Order Completed", "scroll", "search")]
    reply = client.post("/events", json={"events": many}).json()
    assert (reply["accepted"], reply["ignored"]) == (1, 2)
    answer = client.post("/recommend", json={"user_id": "fresh", "k": 100})
    wait_until(
        lambda: "0016" not in items_of(client.post("/recommend", json={"user_id": "fresh", "k": 100})), seconds=5
    )
    assert {"0004", "0016"} >= set(answer.json()["items"][0]["because"])


def test_a_session_becomes_a_user(client: httpx.Client) -> None:
    """All that was done in it is the user's."""
    client.post("/events", json={"session_id": "s1", "item_id": "0004", "event": "like"})
    reply = client.post("/users/link", json={"session_id": "s1", "user_id": "linked"})
    assert reply.status_code == 200, reply.text
    assert client.post("/recommend", json={"user_id": "linked"}).json()["tier"] == "taste"
    assert client.post("/recommend", json={"session_id": "s1"}).json()["tier"] == "taste"
    held = export(client, "linked")
    assert [event["item_id"] for event in held["events"]] == ["0004"]
    assert (held["sessions"], held["erased"]) == (1, False)


def test_an_erased_user_is_nowhere(client: httpx.Client, folder: Path) -> None:
    """In no answer, in no export, in no file of the store, in no line of the log."""
    user_id = "00007"
    key = hash_user(user_id, DEFAULT_USER_KEY)
    assert client.post("/users/profile", json={"user_id": user_id}, headers=ADMIN).status_code == 200
    events = [{"user_id": user_id, "item_id": f"{number:04d}"} for number in range(100)]
    client.post("/events", json={"events": events}, headers={"Idempotency-Key": user_id})
    client.post("/events", json={"session_id": "secret session", "item_id": "0004"})
    client.post("/users/link", json={"session_id": "secret session", "user_id": user_id})
    reply = client.post("/users/erase", json={"user_id": user_id}, headers=ADMIN)
    assert (reply.json()["events"], reply.json()["sessions"]) == (101, 1)
    assert client.post("/recommend", json={"user_id": user_id}).json()["tier"] == "popular"
    assert client.post("/users/profile", json={"user_id": user_id}, headers=ADMIN).status_code == 404
    assert export(client, user_id) == {"events": [], "sessions": 0, "erased": True}
    for file in (folder / "store").iterdir():
        held = file.read_bytes()
        assert key.encode() not in held, file
        assert b"secret session" not in held, file
    assert client.post("/recommend", json={"user_id": "00008"}).json()["tier"] == "taste"


def test_a_service_without_a_store_says_so(server: httpx.Client) -> None:
    """Events have their route, and the reason why they are not kept; items have none without a key."""
    for path, body in (
        ("/events", {"user_id": "u", "item_id": "1"}),
        ("/users/link", {"session_id": "s", "user_id": "u"}),
    ):
        assert_problem(server.post(path, json=body), 404, "VITRINE_STORE says where to")
    assert_problem(server.get("/items/0001?at_least=1"), 404, "VITRINE_STORE says where to")
    for method, path in (("PUT", "/items/a"), ("PATCH", "/items/0001"), ("DELETE", "/items/0001")):
        assert server.request(method, path, json={}, headers=CATALOGUE).status_code in (404, 405)
    for path in ("/items/batch", "/users/erase", "/users/export"):
        assert server.post(path, json={"user_id": "u"}, headers=ADMIN).status_code in (404, 405)


def test_the_documents_name_every_live_route(client: httpx.Client) -> None:
    """With the key that each asks for."""
    paths = client.get("/docs.json").json()["paths"]
    for method, path in (
        ("put", "/items/{item_id}"), ("patch", "/items/{item_id}"), ("delete", "/items/{item_id}"),
        ("post", "/items/batch"), ("post", "/events"), ("post", "/users/link"), ("post", "/users/erase"),
        ("post", "/users/export"),
    ):  # fmt: skip
        assert "summary" in paths[path][method], path
