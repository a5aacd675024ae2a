"""Changes of items, events, sessions and erasure over HTTP: what each request gives."""

import base64
import json
import time
from pathlib import Path

import httpx

from service.recommender.user_keys import DEFAULT_USER_KEY, hash_user
from tests.live import ADMIN, CATALOGUE, assert_problem, export, items_of, put
from tests.processes import wait_until


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
