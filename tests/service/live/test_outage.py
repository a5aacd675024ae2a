"""The store goes away and comes back, while a service answers."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.live import ADMIN, CATALOGUE, export, items_of, keeping, put
from tests.postgres import Postgres
from tests.processes import HOME, Service, serve, wait_until


@pytest.fixture(scope="module")
def pod(release_folder: Path, postgres_server: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service on PostgreSQL."""
    settings = keeping(postgres_server.database())
    with serve(release_folder, tmp_path_factory.mktemp("pod"), settings) as started:
        yield started
        assert "Traceback" not in started.log.read_text()


def degraded(client: httpx.Client, **fields: object) -> list[str]:
    """What a reply says of itself; there is one in any case."""
    response = client.post("/recommend", json=fields)
    assert response.status_code == 200, response.text
    found: list[str] = response.json().get("degraded", [])
    return found


def test_recommendations_go_on_without_the_store_and_writes_when_it_is_back(
    pod: Service, postgres_server: Postgres, photo: bytes
) -> None:
    """From memory, with what came before, and they say so; writes get 503; nobody has to restart anything."""
    client = pod.http
    assert put(client, "before", {"category": "dress", "price": 1}, photo).status_code == 200
    assert client.delete("/items/0004", headers=CATALOGUE).status_code == 200
    assert client.post("/events", json={"user_id": "known", "item_id": "0016"}).status_code == 200
    wait_until(lambda: client.post("/recommend", json={"user_id": "known"}).json()["tier"] == "taste", seconds=20)
    assert degraded(client) == []
    postgres_server.stop()
    try:
        assert wait_until(lambda: degraded(client) == ["store"], seconds=30) < 10
        assert degraded(client, user_id="00007") == ["store"]
        assert "before" in items_of(client.post("/recommend", json={"filter": {"price": {"max": 1}}}))
        assert client.post("/recommend", json={"user_id": "known"}).json()["tier"] == "taste"
        found = client.post("/similar", files={"image": photo})
        assert "before" in items_of(found)
        assert "0004" not in items_of(found)
        for refused in (
            put(client, "during", {}, photo),
            client.patch("/items/0001", json={"price": 1}, headers=CATALOGUE),
            client.delete("/items/0001", headers=CATALOGUE),
            client.post("/items/batch", content=json.dumps({"item_id": "during"}), headers=CATALOGUE),
            client.post("/events", json={"user_id": "u", "item_id": "0001"}),
            client.post("/users/link", json={"session_id": "s", "user_id": "u"}),
            client.post("/users/erase", json={"user_id": "u"}, headers=ADMIN),
            client.post("/users/export", json={"user_id": "u"}, headers=ADMIN),
        ):
            assert refused.status_code == 503, refused.text
            assert refused.headers["retry-after"] == "1"
            assert "store" in refused.json()["detail"]
        assert client.get("/items/0001").status_code == 200
        assert pod.metric("vitrine_store_there") == 0
    finally:
        postgres_server.start()
    assert wait_until(lambda: degraded(client) == [], seconds=30) < 10
    assert client.patch("/items/0001", json={"price": 0.5}, headers=CATALOGUE).status_code == 200
    assert "0001" in items_of(client.post("/recommend", json={"filter": {"price": {"max": 1}}}))
    assert client.get("/items/0004").status_code == client.get("/items/during").status_code == 404
    assert [event["item_id"] for event in export(client, "known")["events"]] == ["0016"]


def test_a_store_that_hangs_is_away_as_well(pod: Service, postgres_server: Postgres) -> None:
    """It takes connections and answers nothing: nobody waits for it for ever."""
    client = pod.http
    with postgres_server.hanging():
        began = time.monotonic()
        refused = client.post("/events", json={"user_id": "u", "item_id": "0001"})
        assert refused.status_code == 503, refused.text
        wait_until(lambda: degraded(client) == ["store"], seconds=30)
        assert time.monotonic() - began < 20
    wait_until(lambda: degraded(client) == [], seconds=30)
    wait_until(lambda: client.post("/events", json={"user_id": "u", "item_id": "0001"}).status_code == 200, seconds=30)


def test_a_service_does_not_start_without_its_store(
    release_folder: Path, postgres_server: Postgres, tmp_path: Path
) -> None:
    """It could answer with what was withdrawn; the reason is one line, without the password."""
    gone = postgres_server.database().replace("postgres:@", "postgres:hunter22@") + "_that_is_not_there"
    command = [sys.executable, "-m", "service", "--port", "1"]
    done = subprocess.run(
        command,
        env={"BENTOML_HOME": str(tmp_path), "VITRINE_RELEASE": str(release_folder), "VITRINE_STORE": gone,
             "VITRINE_STORE_WAIT": "0"},
        cwd=HOME, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    said = done.stdout + done.stderr
    assert "the store cannot be reached" in said
    assert "Traceback" not in said
    assert "hunter22" not in said
