"""Three service processes on one PostgreSQL: what one is told, all of them answer."""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from tests.live import ADMIN, CATALOGUE, items_of, keeping, put
from tests.postgres import Postgres
from tests.processes import serve, wait_until

SOON = 20.0  # seconds on a machine that has other things to do; benchmarks/live.py measures

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def pods(
    release_folder: Path, postgres_server: Postgres, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[httpx.Client]]:
    """A client of each."""
    settings, folder = keeping(postgres_server.database()), tmp_path_factory.mktemp("pods")
    with ExitStack() as running:
        started = [running.enter_context(serve(release_folder, folder / str(number), settings)) for number in range(3)]
        yield [service.http for service in started]


def by_picture(client: httpx.Client, photo: bytes) -> list[str]:
    """What looks like it."""
    return items_of(client.post("/similar", files={"image": photo}, data={"k": "20"}))


def by_filter(client: httpx.Client, brand: str) -> list[str]:
    """What is of this brand, and available; nothing where no item has had a brand yet."""
    response = client.post("/recommend", json={"filter": {"brand": [brand], "available": True}, "k": 100})
    return [] if response.status_code == 422 else items_of(response)


def test_an_item_that_comes_through_one_is_in_the_answers_of_all(pods: list[httpx.Client], photo: bytes) -> None:
    """By its picture, by a filter, by its address and with its picture; so are its sale and its withdrawal."""
    first, *others = pods
    attributes = {"category": "dress", "brand": "b1", "available": True}
    assert put(first, "came", attributes, photo).status_code == 200
    assert "came" in by_picture(first, photo)
    assert by_filter(first, "b1") == ["came"]
    for client in others:
        wait_until(lambda client=client: "came" in by_picture(client, photo), seconds=SOON)  # type: ignore[misc]
        assert by_filter(client, "b1") == ["came"]
        assert client.get("/items/came/picture").content == first.get("/items/came/picture").content
    assert others[0].patch("/items/came", json={"available": False}, headers=CATALOGUE).status_code == 200
    assert by_filter(others[0], "b1") == []
    for client in (first, others[1]):
        wait_until(lambda client=client: by_filter(client, "b1") == [], seconds=SOON)  # type: ignore[misc]
        assert "came" in by_picture(client, photo)
    assert others[1].delete("/items/came", headers=CATALOGUE).status_code == 200
    assert "came" not in by_picture(others[1], photo)
    for client in (first, others[0]):
        wait_until(lambda client=client: "came" not in by_picture(client, photo), seconds=SOON)  # type: ignore[misc]
        assert client.get("/items/came").status_code == 404


def test_what_one_has_acknowledged_is_read_from_another(pods: list[httpx.Client]) -> None:
    """Who names the number of a change gets an answer that knows it, at once, from whichever."""
    for number in range(30):
        client, other = pods[number % 3], pods[(number + 1) % 3]
        reply = put(client, "read", {"price": number}).json()
        found = other.get("/items/read", params={"at_least": reply["sequence"]}).json()
        assert found["attributes"]["price"] == number


def test_events_and_erasure_through_one_count_in_all(pods: list[httpx.Client]) -> None:
    """A user's taste, a session that is theirs, and that they are forgotten."""

    def tiers(**who: str) -> set[str]:
        return {client.post("/recommend", json=who).json()["tier"] for client in pods}

    pods[0].post("/events", json={"session_id": "s", "item_id": "0004", "event": "like"})
    wait_until(lambda: tiers(session_id="s") == {"taste"}, seconds=SOON)
    pods[1].post("/users/link", json={"session_id": "s", "user_id": "new"})
    wait_until(lambda: tiers(user_id="new") == {"taste"}, seconds=SOON)
    pods[2].post("/users/erase", json={"user_id": "new"}, headers=ADMIN)
    wait_until(lambda: tiers(user_id="new") == tiers(session_id="s") == {"popular"}, seconds=SOON)


def test_the_same_request_through_two_is_one(pods: list[httpx.Client]) -> None:
    """A client that is sent to another pod repeats itself there, at the same moment or later."""
    sent = {"user_id": "twice", "item_id": "0004"}
    replies = [client.post("/events", json=sent, headers={"Idempotency-Key": "k"}).json() for client in pods]
    assert replies[0] == replies[1] == replies[2]
    held = pods[0].post("/users/export", json={"user_id": "twice"}, headers=ADMIN).json()
    assert len(held["events"]) == 1


def test_two_that_change_one_item_agree_in_the_end(pods: list[httpx.Client]) -> None:
    """Whatever came last counts in each."""
    last = 0
    for number in range(40):
        reply = put(pods[number % 3], "both", {"price": number})
        assert reply.status_code == 200
        last = reply.json()["sequence"]
    began = time.monotonic()
    prices = {client.get("/items/both", params={"at_least": last}).json()["attributes"]["price"] for client in pods}
    assert prices == {39}
    assert time.monotonic() - began < SOON
