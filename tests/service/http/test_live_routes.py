"""Changes of items, events, sessions and erasure over HTTP: what each request gives, and what is said where it is wrong."""

import base64
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.recommender.user_keys import DEFAULT_USER_KEY, hash_user
from tests.processes import Service, serve, wait_until

CATALOGUE, ADMIN = {"X-Catalogue-Key": "catalogue1"}, {"X-Admin-Key": "adminadmin"}
JSON_TYPE = {"content-type": "application/json"}
Sent = tuple[str, str, dict[str, Any]]  # method, path, and what httpx takes beside them


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the store lies."""
    return tmp_path_factory.mktemp("live")


@pytest.fixture(scope="module")
def live(release_folder: Path, folder: Path) -> Iterator[Service]:
    """A service with a store and both keys."""
    settings = {
        "VITRINE_STORE": str(folder / "store" / "live.db"),
        "VITRINE_CATALOGUE_KEY": CATALOGUE["X-Catalogue-Key"],
        "VITRINE_ADMIN_KEY": ADMIN["X-Admin-Key"],
        "VITRINE_MAX_PIXELS": "4000000",
    }
    with serve(release_folder, folder / "home", settings) as started:
        yield started
        assert "Traceback" not in started.log.read_text()


@pytest.fixture
def client(live: Service) -> httpx.Client:
    """One who may do everything."""
    return live.http


def put(client: httpx.Client, item_id: str, attributes: Any = None, *pictures: bytes, **headers: str) -> httpx.Response:
    """PUT /items/{item_id}, with pictures as a form."""
    headers = {**CATALOGUE, **headers}
    if not pictures:
        return client.put(f"/items/{item_id}", json=attributes or {}, headers=headers)
    files: list[Any] = [("image", ("photo.jpg", picture, "image/jpeg")) for picture in pictures]
    if attributes is not None:
        files.append(("attributes", (None, json.dumps(attributes))))
    return client.put(f"/items/{item_id}", files=files, headers=headers)


def items_of(response: httpx.Response) -> list[str]:
    """The ids of an answer, in order."""
    assert response.status_code == 200, response.text
    return [item["item_id"] for item in response.json()["items"]]


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


WRONG: dict[str, Callable[[bytes], tuple[str, str, dict[str, Any], int, str, str | None]]] = {
    "a text for a picture": lambda p: ("PUT", "/items/e", form(b"hello, I am a picture"), 415, "JPEG", "image"),
    "a picture cut short": lambda p: ("PUT", "/items/e", form(p[:2000]), 422, "", "image"),
    "a URL for a picture": lambda p: ("PUT", "/items/e", {"data": {"image": "http://127.0.0.1:1/a.jpg"}, "files": {"attributes": (None, "{}")}}, 422, "image must be a file; URLs", "image"),
    "eleven pictures": lambda p: ("PUT", "/items/e", form(p, *[("image", ("p.jpg", p, "image/jpeg"))] * 10), 422, "10 pictures at most; got 11", "image"),
    "another part": lambda p: ("PUT", "/items/e", form(p, ("price", (None, "7"))), 422, "expected one part `attributes`", "price"),
    "attributes that are no JSON": lambda p: ("PUT", "/items/e", form(p, ("attributes", (None, "{"))), 400, "attributes", "attributes"),
    "attributes as a list": lambda p: ("PUT", "/items/e", {"json": [1]}, 422, "attributes must be a JSON object", "attributes"),
    "another content type": lambda p: ("PUT", "/items/e", {"content": b"<a/>", "headers": {"content-type": "text/xml"}}, 415, "expected application/json", None),
    "a body cut short": lambda p: ("PUT", "/items/e", {"content": b"{", "headers": JSON_TYPE}, 400, "JSON", None),
    "NaN": lambda p: ("PUT", "/items/e", {"content": b'{"price": NaN}', "headers": JSON_TYPE}, 400, "", None),
    "a number of 400 digits": lambda p: ("PUT", "/items/e", {"json": {"price": 10**400}}, 422, "is a number in this catalogue", "price"),
    "half a character": lambda p: ("PUT", "/items/e", {"content": b'{"colour": "\\ud800"}', "headers": JSON_TYPE}, 422, "whole characters", "colour"),
    "half a character in a name": lambda p: ("PUT", "/items/e", {"content": b'{"\\ud800": 1}', "headers": JSON_TYPE}, 422, "an attribute's name", "attributes"),
    "a text for a number": lambda p: ("PUT", "/items/e", {"json": {"price": "7"}}, 422, "'price' is a number in this catalogue; got '7'", "price"),
    "a number for a text": lambda p: ("PUT", "/items/e", {"json": {"colour": 7}}, 422, "'colour' is a text in this catalogue; got 7", "colour"),
    "a text for true": lambda p: ("PUT", "/items/e", {"json": {"available": "yes"}}, 422, "is true or false in this catalogue", "available"),
    "an object for a text": lambda p: ("PUT", "/items/e", {"json": {"fit": {"a": 1}}}, 422, "is a text", "fit"),
    "a number for the title": lambda p: ("PUT", "/items/e", {"json": {"title": 7}}, 422, "'title' is a text", "title"),
    "a title of a book": lambda p: ("PUT", "/items/e", {"json": {"title": "x" * 2001}}, 422, "2000 characters at most", "title"),
    "a name that is ours": lambda p: ("PUT", "/items/e", {"json": {"item_id": "f"}}, 422, "the id stands in the path", "item_id"),
    "a name with _": lambda p: ("PUT", "/items/e", {"json": {"_popularity": 9}}, 422, "does not begin with _", "attributes"),
    "201 attributes": lambda p: ("PUT", "/items/e", {"json": {f"a{n}": 1 for n in range(201)}}, 422, "at most 200 attributes", "attributes"),
    "an id with a space at its end": lambda p: ("PUT", "/items/e%20", {"json": {}}, 422, "begins or ends with a space", "item_id"),
    "an id of 513 characters": lambda p: ("PUT", f"/items/{'x' * 513}", {"json": {}}, 422, "1 to 512 characters", "item_id"),
    "an id with the character of number 0": lambda p: ("PUT", "/items/a%00b", {"json": {}}, 422, "item_id", "item_id"),
    "a patch of nothing": lambda p: ("PATCH", "/items/0001", {"json": {}}, 422, "there is no attribute to change", "attributes"),
    "a patch of an item that is not there": lambda p: ("PATCH", "/items/none", {"json": {"price": 1}}, 404, "there is no item 'none'", "item_id"),
    "a withdrawal of an item that is not there": lambda p: ("DELETE", "/items/none", {}, 404, "there is no item 'none'", "item_id"),
    "too many lines": lambda p: ("POST", "/items/batch", {"content": b"{}\n" * 10_001}, 422, "at most 10000 lines", None),
    "an empty Idempotency-Key": lambda p: ("PUT", "/items/e", {"json": {}, "headers": {"Idempotency-Key": ""}}, 422, "1 to 255 characters; got 0", "Idempotency-Key"),
    "a long Idempotency-Key": lambda p: ("POST", "/events", {"json": {"user_id": "u", "item_id": "1"}, "headers": {"Idempotency-Key": "k" * 256}}, 422, "1 to 255 characters; got 256", "Idempotency-Key"),
    "no events": lambda p: ("POST", "/events", {"json": {"events": []}}, 422, "a list of 1 to 5000", "events"),
    "5,001 events": lambda p: ("POST", "/events", {"json": {"events": [{}] * 5001}}, 422, "a list of 1 to 5000", "events"),
    "an event that is a text": lambda p: ("POST", "/events", {"json": {"events": ["view"]}}, 422, "events[0] must be an object", "events"),
    "events as a text": lambda p: ("POST", "/events", {"json": "view"}, 422, "expected an event", "events"),
    "more beside events": lambda p: ("POST", "/events", {"json": {"events": [{}], "user_id": "u"}}, 422, "beside `events` there is nothing else", "events"),
    "an event without a user": lambda p: ("POST", "/events", {"json": {"item_id": "1"}}, 422, "events[0]: expected a user_id or a session_id", "events"),
    "an event of two": lambda p: ("POST", "/events", {"json": {"user_id": "u", "session_id": "s", "item_id": "1"}}, 422, "not both", "events"),
    "an event without an item": lambda p: ("POST", "/events", {"json": {"user_id": "u"}}, 422, "item_id is needed", "events"),
    "an event with another field": lambda p: ("POST", "/events", {"json": {"user_id": "u", "item_id": "1", "time": 1}}, 422, "unknown field 'time'", "events"),
    "an event that nobody knows": lambda p: ("POST", "/events", {"json": {"user_id": "u", "item_id": "1", "event": "stole"}}, 422, "the event 'stole' is not known", "events"),
    "an event that is a number": lambda p: ("POST", "/events", {"json": {"user_id": "u", "item_id": "1", "event": 1}}, 422, "the event 1 is not known", "events"),
    "a rating of nothing": lambda p: ("POST", "/events", {"json": {"user_id": "u", "item_id": "1", "event": "rating"}}, 422, "a rating needs a value", "events"),
    "a value that is a text": lambda p: ("POST", "/events", {"json": {"user_id": "u", "item_id": "1", "value": "7"}}, 422, "value must be a number", "events"),
    "an event of tomorrow": lambda p: ("POST", "/events", {"json": {"user_id": "u", "item_id": "1", "timestamp": time.time() + 86_400}}, 422, "not in the future", "events"),
    "an event of 1969": lambda p: ("POST", "/events", {"json": {"user_id": "u", "item_id": "1", "timestamp": -1}}, 422, "seconds since 1970", "events"),
    "an item with the character of number 0": lambda p: ("POST", "/events", {"json": {"user_id": "u", "item_id": "a\0"}}, 422, "item_id", "events[0].item_id"),
    "a user of half a character": lambda p: ("POST", "/events", {"content": b'{"user_id": "\\ud800", "item_id": "1"}', "headers": JSON_TYPE}, 422, "user_id is not valid text", "events[0].user_id"),
    "an empty session": lambda p: ("POST", "/events", {"json": {"session_id": " ", "item_id": "1"}}, 422, "1 to 512 characters", "events[0].session_id"),
    "a link without a user": lambda p: ("POST", "/users/link", {"json": {"session_id": "s"}}, 400, 'expected {"session_id": "...", "user_id": "..."}', "user_id"),
    "an erasure of a number": lambda p: ("POST", "/users/erase", {"json": {"user_id": 7}}, 400, 'expected {"user_id": "..."}', "user_id"),
    "an export of nobody": lambda p: ("POST", "/users/export", {"json": {"user_id": ""}}, 422, "1 to 512 characters", "user_id"),
    "at_least as a text": lambda p: ("GET", "/items/0001?at_least=x", {}, 422, "a whole number; got 'x'", "at_least"),
    "at_least below zero": lambda p: ("GET", "/items/0001?at_least=-1", {}, 422, "a whole number", "at_least"),
    "at_least of other digits": lambda p: ("GET", "/items/0001?at_least=\N{ARABIC-INDIC DIGIT ONE}", {}, 422, "a whole number", "at_least"),
    "another parameter": lambda p: ("GET", "/items/0001?at_last=1", {}, 422, "unknown query parameter 'at_last'", "at_last"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_named(client: httpx.Client, photo: bytes, name: str) -> None:
    """By what was expected, what was found, and the part of the request that it is in."""
    method, path, sent, status, said, field = WRONG[name](photo)
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


def export(client: httpx.Client, user_id: str) -> dict[str, Any]:
    """What is held of a user."""
    found: dict[str, Any] = client.post("/users/export", json={"user_id": user_id}, headers=ADMIN).json()
    return found


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
