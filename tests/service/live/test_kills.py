"""A pod is killed again and again while clients write: nothing that was acknowledged is lost, and nothing is doubled.

A client sends again, with the same Idempotency-Key, what was not acknowledged. `make test-live` (VITRINE_FUZZ=1)
kills a hundred times; VITRINE_KILLS says another number.
"""

import itertools
import os
import random
import signal
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.live.store import Store
from service.recommender.user_keys import DEFAULT_USER_KEY, hash_user
from tests.live import CATALOGUE, export, keeping
from tests.postgres import Postgres
from tests.processes import Clients, Service, serve

KILLS = int(os.environ.get("VITRINE_KILLS", "100" if os.environ.get("VITRINE_FUZZ") == "1" else "5"))
CLIENTS = 4
PAUSE = 0.1  # seconds before a request is sent again
BETWEEN = (0.1, 1.5)  # seconds from when a pod is ready until it is killed


class Pod:
    """One service process, at another address after each start."""

    def __init__(self, release: Path, home: Path, store: str) -> None:
        self._release, self._home, self._settings = release, home, keeping(store)
        self._numbers, self._running = itertools.count(), ExitStack()
        self.start()

    def start(self) -> None:
        """Start it."""
        pod = serve(self._release, self._home / str(next(self._numbers)), self._settings)
        self.service: Service = self._running.enter_context(pod)

    def kill(self) -> None:
        """SIGKILL, and start it again."""
        self.service.process.send_signal(signal.SIGKILL)
        self.service.process.wait()
        self._running.close()
        self.start()

    def end(self) -> None:
        """End it."""
        self._running.close()


class Writers(Clients):
    """Clients that write until the block ends, and send again what was not acknowledged."""

    def __init__(self, pod: Pod) -> None:
        self.events: Counter[tuple[str, str]] = Counter()  # (user, item) that was acknowledged
        self.prices: dict[str, int] = {}  # item -> its last acknowledged price
        self.again = 0
        self.wrong: list[str] = []
        self._given_up = False
        self._pod = pod
        super().__init__([lambda name=f"c{number}": self._write(name) for number in range(CLIENTS)])

    def __exit__(self, *error: object) -> None:
        self._given_up = error[0] is not None  # no pod comes back that would acknowledge anything
        super().__exit__(*error)

    def _write(self, name: str) -> None:
        number = 0
        while not self.done.is_set():
            number += 1
            item_ids = [f"{name}-{number}-{part}" for part in range(1 + number % 3)]
            events = [{"user_id": name, "item_id": item_id} for item_id in item_ids]
            self._until_acknowledged("POST", "/events", {"events": events}, f"e{name}{number}")
            self.events.update((name, item_id) for item_id in item_ids)
            self._until_acknowledged("PUT", f"/items/{name}", {"price": number}, f"p{name}{number}")
            self.prices[name] = number

    def _until_acknowledged(self, method: str, path: str, body: dict[str, Any], key: str) -> None:
        headers = {**CATALOGUE, "Idempotency-Key": key}
        while not self._given_up:
            try:
                response = self._pod.service.http.request(method, path, json=body, headers=headers)
            except (httpx.TransportError, RuntimeError):  # killed; or its client was closed meanwhile
                self.again += 1
                time.sleep(PAUSE)
                continue
            if response.status_code == 200:
                return
            self.again += 1
            if response.status_code != 503:
                self.wrong.append(response.text)
            time.sleep(PAUSE)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_what_was_acknowledged_outlives_kills(
    kind: str, release_folder: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Every event once, and of every item its last price."""
    url = str(tmp_path / "live.db")
    if kind == "postgresql":
        server: Postgres = request.getfixturevalue("postgres_server")
        url = server.database()
    rng, pod = random.Random(0), Pod(release_folder, tmp_path, url)
    try:
        with Writers(pod) as writers:
            for _ in range(KILLS):
                time.sleep(rng.uniform(*BETWEEN))
                pod.kill()
        assert writers.wrong == []
        for name, price in writers.prices.items():
            said = pod.service.http.get(f"/items/{name}").json()
            assert said["attributes"]["price"] == price
            told = Counter(event["item_id"] for event in export(pod.service.http, name)["events"])
            assert told == Counter({item_id: n for (user, item_id), n in writers.events.items() if user == name})
    finally:
        pod.end()
    store = Store.open(url)
    names = {hash_user(f"c{number}", DEFAULT_USER_KEY): f"c{number}" for number in range(CLIENTS)}
    kept: Counter[tuple[str, str]] = Counter()
    position = 0
    while (changes := store.changes(position)).upto > position:
        kept.update((names[event.user_key], event.item_id) for event in changes.events)
        position = changes.upto
    store.close()
    assert kept == writers.events
    assert set(kept.values()) == {1}
    assert writers.again > 0
    print(f"{kind}: {KILLS} kills, {sum(kept.values())} events, {writers.again} sent again")
