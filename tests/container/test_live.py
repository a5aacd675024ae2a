"""Items change and users act while pods replace each other: PostgreSQL keeps it, and every pod answers with it."""

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.container.conftest import DEV_KEY, KEPT, accepts_connections
from tests.container.load import Balancer, OpenLoop
from tests.container.pods import Pod, overlay_of, pod, podman, render
from tests.container.test_pods import metric, recommend
from tests.container.test_rollout import replace
from tests.container.writers import Merchant, Visitor, until_alike
from tests.processes import Clients, wait_until

PODS = 3
CLIENTS = ExitStack()
DATABASE = "live"  # of this file: other tests ask for a catalogue that nobody changes
ADMIN = {"X-Admin-Key": DEV_KEY}


@pytest.fixture(scope="module")
def pods(first: Pod, postgres: Pod, k8s: Path) -> Iterator[list[Pod]]:
    """Three that play, and three to replace them."""
    podman("exec", postgres.container, "createdb", "--username=vitrine", DATABASE)
    made = [pod(render(overlay_of(k8s, 1)), "vitrine", f"vitrine-live-{number}") for number in range(2 * PODS)]
    for each in made:
        settings = each.manifests[-1]["spec"]["containers"][0]["env"]
        [store] = [setting for setting in settings if setting["name"] == "VITRINE_STORE"]
        store["value"] = store["value"].removesuffix("/vitrine") + f"/{DATABASE}"
        # each pod takes the engine that is the fastest when it starts, and engines differ in the last bits
        settings.append({"name": "VITRINE_ENCODER", "value": "onnxruntime"})
        each.remove()
    for each in made[:PODS]:
        each.play()
    try:
        for each in made[:PODS]:
            each.wait()
        yield made
    finally:
        for each in made:
            each.remove()


def sql(postgres: Pod, query: str) -> str:
    """What the database itself holds."""
    ask = ("psql", "--username=vitrine", f"--dbname={DATABASE}", "--tuples-only", "--no-align", f"--command={query}")
    return podman("exec", postgres.container, *ask)


@cache
def client(url: str) -> httpx.Client:
    """One that is kept: each costs as much as many requests."""
    return CLIENTS.enter_context(httpx.Client(base_url=url, timeout=30))


@pytest.fixture(scope="module", autouse=True)
def _clients_are_closed() -> Iterator[None]:
    with CLIENTS:
        yield
    client.cache_clear()


def item(made: Pod, item_id: str, sequence: int) -> dict[str, Any]:
    """An item as a pod has it, with all changes up to this one; {} where there is none."""
    response = client(made.http).get(f"/items/{item_id}", params={"at_least": sequence})
    assert response.status_code in (200, 404), response.text
    return response.json() if response.status_code == 200 else {}


def answer(made: Pod, sent: dict[str, str], photo: bytes | None) -> dict[str, Any]:
    """A recommendation as a pod gives it."""
    files = {"image": photo} if photo else None
    response = client(made.http).post("/recommend", data={**sent, "k": "20"}, files=files)
    return response.raise_for_status().json()


def test_a_rollout_loses_and_doubles_no_change_and_no_event(
    pods: list[Pod], postgres: Pod, photo: bytes, tmp_path: Path
) -> None:
    """Three pods are replaced one after another while clients change items and report events: no answer fails, what had
    to be sent again was done once, the pods that stay answer alike, and what was withdrawn before is in no answer."""
    photos = [path.read_bytes() for path in sorted((KEPT / "boutique" / "images").iterdir())[:20]]
    shown = [each["item_id"] for each in recommend(pods[0], photo)["items"]]
    with Balancer(tmp_path / "balancer", pods) as at:
        merchant = CLIENTS.enter_context(Merchant(at.url, DEV_KEY, "m"))
        visitors = [CLIENTS.enter_context(Visitor(at.url, DEV_KEY, f"v{n}")) for n in range(2)]
        withdrawn = merchant.send("DELETE", f"/items/{shown[0]}")
        assert [item(each, shown[0], withdrawn["sequence"]) for each in pods[:PODS]] == [{}] * PODS
        clients = Clients([
            lambda: merchant.work(clients.done, photos), *(lambda v=v: v.work(clients.done, shown) for v in visitors)
        ])  # fmt: skip
        with OpenLoop(at.url, photo, rate=5) as load, clients:
            time.sleep(2)
            for old, new in zip(pods[:PODS], pods[PODS:], strict=True):
                replace(old, new, beside=0)
            time.sleep(2)
    writers = [merchant, *visitors]
    acknowledged = [number for each in writers for number in each.sequences]
    print(f"{len(load.answers)} answers; {len(acknowledged)} changes and events, of which "
          f"{sum(len(each.repeated) for each in writers)} attempts had to be repeated")  # fmt: skip

    assert not load.failed
    assert not [said for each in writers for said in each.refused]
    assert len(load.answers) > 50
    assert len(acknowledged) > 100
    assert not any(shown[0] in each.items for each in load.answers)
    # nothing lost, nothing twice: by what clients were told, and by what the database holds
    assert max(Counter(acknowledged).values()) == 1
    events = Counter(event for each in visitors for event in each.events)
    assert set(events.values()) == {1}
    assert int(sql(postgres, "SELECT count(*) FROM events")) == len(events)
    held = Counter()
    for user in {user for user, _, _ in events}:
        exported = client(pods[-1].http).post("/users/export", json={"user_id": user}, headers=ADMIN).json()
        held.update((user, each["item_id"], each["timestamp"]) for each in exported["events"])
    assert held == events
    assert int(sql(postgres, "SELECT count(*) FROM items")) == len(merchant.prices) + 1

    last = max(acknowledged)
    for item_id, price in {**merchant.prices, shown[0]: None}.items():
        found = until_alike(lambda item_id=item_id: [item(each, item_id, last) for each in pods[PODS:]])
        assert found.get("attributes", {}).get("price") == price, item_id
    for sent in ({}, {"user_id": "00007"}, {"user_id": events.most_common(1)[0][0][0]}):
        for seen in (None, *photos[:3]):
            alike = until_alike(lambda sent=sent, seen=seen: [answer(each, sent, seen) for each in pods[PODS:]])
            assert shown[0] not in {each["item_id"] for each in alike["items"]}
    assert [metric(each, "vitrine_store_behind_changes") for each in pods[PODS:]] == [0] * PODS


def test_without_postgresql_answers_go_on_and_nothing_is_acknowledged(
    pods: list[Pod], postgres: Pod, photo: bytes
) -> None:
    """Killed, recommendations say `store` and events are refused; started again, both go on, in the same pods."""
    asked, event = pods[-1], {"user_id": "00007", "item_id": "0004", "event": "like"}
    before = sql(postgres, "SELECT count(*) FROM events")
    podman("kill", postgres.container)
    wait_until(lambda: "store" in recommend(asked, photo)["degraded"])
    refused = client(asked.http).post("/events", json=event)
    assert refused.status_code == 503
    assert int(refused.headers["Retry-After"]) > 0
    assert metric(asked, "vitrine_store_there") == 0
    podman("start", postgres.container)
    wait_until(lambda: accepts_connections(postgres))
    wait_until(lambda: "store" not in recommend(asked, photo)["degraded"])
    assert sql(postgres, "SELECT count(*) FROM events") == before
    assert client(asked.http).post("/events", json=event).status_code == 200
