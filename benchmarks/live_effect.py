"""How soon the answers of all pods say what was changed through one."""

import argparse
import json
import statistics
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import httpx
from live_garments import KEY, garments
from load_process import generated
from rich.table import Table
from servers import HERE, Server, vitrine

sys.path.insert(0, str(HERE.parent))
from tests.postgres import postgres

PODS, CLIENTS = 3, 8
EFFECT = 1.0  # seconds, what is asked for
PATIENCE = 60.0  # seconds that an effect is waited for
ASK_AGAIN = 0.01  # seconds between looks of one client at one pod


@dataclass(slots=True)
class Effect:
    """seconds: from the reply of each change to the first answer of the last pod that says so; asking: what one such
    answer takes; failed: requests."""

    seconds: list[float] = field(default_factory=list)
    asking: list[float] = field(default_factory=list)
    failed: int = 0


def effect(asked: argparse.Namespace, home: Path) -> Table:
    """Changes through one pod in the answers of all."""
    home.mkdir()
    found = {name: Effect() for name in ("put, by picture", "put, by filter", "sold out, by filter", "withdrawn")}
    with ExitStack() as started:
        url = started.enter_context(postgres()).database()
        servers = [
            started.enter_context(vitrine(asked.release, home, encoder=None, name=f"pod-{n}", VITRINE_STORE=url))
            for n in range(PODS)
        ]
        pods = [Pod(server) for server in servers]
        loads = [
            started.enter_context(Load(server, asked.pictures, clients=clients))
            for server, clients in zip(servers, _shares(CLIENTS, PODS), strict=True)
        ]
        pool = started.enter_context(ThreadPoolExecutor(2 * PODS))
        for number, picture in enumerate(garments(asked.work, asked.changes)):
            change(pods[number % PODS :] + pods[: number % PODS], f"live-{number}", picture, found, pool)
    statuses = sum((load.statuses for load in loads), Counter())
    table = Table(
        "change", "n", "p50 s", "p99 s", "longest s", "asked for: p99 s", "ratio", "one answer takes, p50 s", "failed",
        title=f"From the reply of a change until {PODS} pods answer so, under the load of {CLIENTS} clients",
        caption=f"load: {dict(statuses)} by status, {sum(load.lost for load in loads)} lost",
    )  # fmt: skip
    for name, each in found.items():
        p99 = percentile(each.seconds, 99)
        table.add_row(
            name, str(len(each.seconds)), f"{statistics.median(each.seconds):.3f}", f"{p99:.3f}",
            f"{max(each.seconds):.3f}", f"{EFFECT:g}", f"x {p99 / EFFECT:.2f}",
            f"{statistics.median(each.asking):.3f}", str(each.failed),
        )  # fmt: skip
    return table


class Pod:
    """One service, as a shop sees it."""

    def __init__(self, server: Server) -> None:
        self.client = httpx.Client(base_url=server.url.removesuffix("/recommend"), timeout=30, headers=KEY)

    def by_picture(self, item_id: str, picture: bytes) -> bool | None:
        """Whether an item is among those that look like a picture; None where the request fails."""
        return _shows(item_id, self.client.post("/similar", files={"image": picture}, data={"k": "10"}))

    def by_filter(self, item_id: str) -> bool | None:
        """Whether an item is among those of its brand that can be bought."""
        return _shows(item_id, self.client.post("/recommend", json={"filter": {"brand": [item_id], "available": True}}))


def _shows(item_id: str, response: httpx.Response) -> bool | None:
    if response.status_code == 422 and "no column" in response.text:  # of an item that came: none has come yet
        return False
    if response.status_code != 200:
        return None
    return any(item["item_id"] == item_id for item in response.json()["items"])


def change(
    pods: Sequence[Pod], item_id: str, picture: bytes, found: dict[str, Effect], pool: ThreadPoolExecutor
) -> None:
    """Put, sell and withdraw one item, each through another pod, and look at all of them after each."""
    path = f"/items/{item_id}"
    attributes = json.dumps({"category": "dress", "brand": item_id, "available": True, "price": 10})
    files: Any = [("image", ("p.jpg", picture, "image/jpeg")), ("attributes", (None, attributes))]

    def by_picture(pod: Pod) -> bool | None:
        return pod.by_picture(item_id, picture)

    def by_filter(pod: Pod) -> bool | None:
        return pod.by_filter(item_id)

    response = pods[0].client.put(path, files=files)
    _watch({"put, by picture": by_picture, "put, by filter": by_filter}, True, response, pods, found, pool)
    response = pods[1].client.patch(path, json={"available": False})
    _watch({"sold out, by filter": by_filter}, False, response, pods, found, pool)
    response = pods[2].client.delete(path)
    _watch({"withdrawn": by_picture}, False, response, pods, found, pool)


def _watch(
    looks: dict[str, Callable[[Pod], bool | None]], expected: bool, response: httpx.Response, pods: Sequence[Pod],
    found: dict[str, Effect], pool: ThreadPoolExecutor,
) -> None:  # fmt: skip
    replied = time.perf_counter()
    waiting = {
        name: [pool.submit(_until, partial(look, pod), expected, replied) for pod in pods]
        for name, look in looks.items()
    }
    for name, each in waiting.items():
        done = [future.result() for future in each]
        found[name].seconds.append(max(seconds for seconds, _, _ in done))
        found[name].asking += [asking for _, asking, _ in done]
        found[name].failed += sum(failed for _, _, failed in done) + (response.status_code != 200)


def _until(look: Callable[[], bool | None], expected: bool, replied: float) -> tuple[float, float, int]:
    """-> seconds from the reply until a pod answers as it should, seconds of that answer, requests that failed."""
    failed = 0
    while True:
        began = time.perf_counter()
        shows = look()
        now = time.perf_counter()
        failed += shows is None
        if shows is expected or now - replied > PATIENCE:
            return now - replied, now - began, failed
        time.sleep(ASK_AGAIN)


class Load:
    """Clients that ask a server for as long as the block lasts."""

    def __init__(self, server: Server, pictures: Path, *, clients: int) -> None:
        self.statuses: Counter[str] = Counter()
        self.lost = 0
        self._server, self._pictures, self._clients = server, pictures, clients
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "Load":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._done.is_set():
            said = generated(self._server, pictures=self._pictures, clients=self._clients, seconds=3)
            self.statuses.update(said["statuses"])
            self.lost += said["lost"]


def percentile(values: Sequence[float], percent: float) -> float:
    """The least value that so many of a hundred do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(percent / 100 * len(ordered)))]


def _shares(clients: int, pods: int) -> list[int]:
    return [len(range(first, clients, pods)) for first in range(pods)]
