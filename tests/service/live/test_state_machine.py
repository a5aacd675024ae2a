"""Any sequence of changes, events, erasures, restarts, switches of the release and outages of the store.

What is withdrawn appears in no reply after its acknowledgement, and an erased user in none either.
"""

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from tests.live import ADMIN, CATALOGUE, export, keeping, put
from tests.postgres import Postgres
from tests.processes import Service, serve, wait_until

LONG = os.environ.get("VITRINE_FUZZ") == "1"
EXAMPLES, STEPS = (40, 60) if LONG else (3, 25)
ITEMS = [f"{number:04d}" for number in range(24)] + [f"new-{number}" for number in range(6)]
PICTURES = [f"{number:04d}" for number in (0, 3, 4, 5, 16, 17)]
USERS = [f"{number:05d}" for number in range(4)] + ["fresh-1", "fresh-2"]
SESSIONS = ["s-1", "s-2"]

items, users, sessions = st.sampled_from(ITEMS), st.sampled_from(USERS), st.sampled_from(SESSIONS)
pictures = st.none() | st.sampled_from(PICTURES)


class World:
    """One service on one PostgreSQL."""

    def __init__(self, releases: Path, server: Postgres, home: Path, images: Path) -> None:
        self.server, self._releases, self._home, self._images = server, releases, home, images
        self._settings = keeping(server.database())
        self._running = ExitStack()
        self.there = True  # whether the store is
        self.release = "1"
        self.start()

    def start(self) -> None:
        """Start the service, on the release that answered last."""
        pod = serve(self._releases / self.release, self._home / uuid4().hex, self._settings)
        self.service: Service = self._running.enter_context(pod)

    def end(self) -> None:
        """End the service."""
        self._running.close()

    @property
    def client(self) -> httpx.Client:
        """Of the service."""
        return self.service.http

    def photo(self, item_id: str) -> bytes:
        """A picture of the catalogue."""
        return (self._images / f"{item_id}.jpg").read_bytes()


@pytest.fixture(scope="module")
def world(
    releases: Path, postgres_server: Postgres, boutique_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    """Started."""
    made = World(releases, postgres_server, tmp_path_factory.mktemp("world"), boutique_folder / "images")
    yield made
    made.end()


def shown(answer: dict[str, Any]) -> set[str]:
    """Every item that an answer names."""
    found = {item["item_id"] for item in answer["items"]}
    found |= {reason for item in answer["items"] for reason in item["because"]}
    return found | ({answer["match"]["item_id"]} if answer.get("match") else set())


def machine(world: World) -> type[RuleBasedStateMachine]:
    """Steps on this world, and what must be true after each."""

    class Shop(RuleBasedStateMachine):
        def __init__(self) -> None:
            super().__init__()
            self.withdrawn: set[str] = {"never-there"}
            self.erased: set[str] = set()
            for item_id in ITEMS:  # as an example before has left them
                put(world.client, item_id, {"category": "dress"})
            for user in USERS:
                world.client.post("/users/erase", json={"user_id": user}, headers=ADMIN)
            self.erased |= set(USERS)

        def done(self, response: httpx.Response) -> bool:
            """Whether it was acknowledged; if it was not, the store is away, or there is no such item."""
            assert response.status_code in (200, 404, 503), response.text
            assert response.status_code != 503 or not world.there, response.text
            return response.status_code == 200

        @rule(item_id=items, picture=pictures, price=st.integers(1, 9))
        def upsert(self, item_id: str, picture: str | None, price: int) -> None:
            given = [] if picture is None else [world.photo(picture)]
            if self.done(put(world.client, item_id, {"category": "dress", "price": price}, *given)):
                self.withdrawn.discard(item_id)

        @rule(item_id=items, price=st.integers(1, 9))
        def patch(self, item_id: str, price: int) -> None:
            done = self.done(world.client.patch(f"/items/{item_id}", json={"price": price}, headers=CATALOGUE))
            assert not (done and item_id in self.withdrawn)

        @rule(item_id=items)
        def withdraw(self, item_id: str) -> None:
            if self.done(world.client.delete(f"/items/{item_id}", headers=CATALOGUE)):
                assert item_id not in self.withdrawn
                self.withdrawn.add(item_id)

        @rule(user=users, item_id=items, event=st.sampled_from(["view", "purchase", "dismiss"]))
        def event(self, user: str, item_id: str, event: str) -> None:
            sent = {"user_id": user, "item_id": item_id, "event": event}
            if self.done(world.client.post("/events", json=sent)):
                self.erased.discard(user)

        @rule(session=sessions, user=users, item_id=items)
        def sign_in(self, session: str, user: str, item_id: str) -> None:
            world.client.post("/events", json={"session_id": session, "item_id": item_id})
            if self.done(world.client.post("/users/link", json={"session_id": session, "user_id": user})):
                self.erased.discard(user)

        @rule(user=users)
        def erase(self, user: str) -> None:
            if self.done(world.client.post("/users/erase", json={"user_id": user}, headers=ADMIN)):
                self.erased.add(user)

        @rule(number=st.sampled_from(["1", "2"]))
        def switch(self, number: str) -> None:
            response = world.client.post("/admin/release", json={"release": number}, headers=ADMIN)
            assert response.status_code == (200 if world.there else 409), response.text
            if world.there:
                world.release = number

        @precondition(lambda self: world.there)
        @rule(kill=st.booleans())
        def restart(self, kill: bool) -> None:
            if kill:
                world.service.process.send_signal(signal.SIGKILL)
            world.end()
            world.start()

        @precondition(lambda self: world.there)
        @rule()
        def lose_the_store(self) -> None:
            world.server.stop()
            world.there = False

        @precondition(lambda self: not world.there)
        @rule()
        def find_the_store(self) -> None:
            world.server.start()
            world.there = True
            wait_until(lambda: put(world.client, "probe", {}).status_code == 200, seconds=60)

        @invariant()
        def nothing_that_is_gone_is_shown(self) -> None:
            photo, client = {"image": world.photo("0004")}, world.client
            asked = [
                client.post("/recommend", json={"k": 100}),
                client.post("/similar", files=photo, data={"k": "100"}),
            ]
            asked.append(client.post("/recommend", files=photo, data={"k": "50", "relation": "complements"}))
            for user in USERS[:3]:
                asked.append(client.post("/recommend", files=photo, data={"k": "100", "user_id": user}))
                asked.append(client.post("/recommend", json={"k": 100, "user_id": user, "exclude_seen": False}))
            for response in asked:
                assert response.status_code == 200, response.text
                assert not self.withdrawn & shown(response.json())
            for item_id in self.withdrawn:
                assert client.get(f"/items/{item_id}").status_code == 404
            for user in USERS:
                profile = client.post("/users/profile", json={"user_id": user}, headers=ADMIN)
                if user in self.erased:
                    assert profile.status_code == 404
                    answer = client.post("/recommend", json={"user_id": user}).json()
                    assert answer["tier"] == "popular"
                    assert not any(item["because"] for item in answer["items"])
                    if world.there:
                        assert export(client, user) == {"events": [], "sessions": 0, "erased": True}
                elif profile.status_code == 200:
                    body = profile.json()
                    named = {*body["items"], *((body["segment"] or {}).get("items", []))}
                    assert not self.withdrawn & named

        def teardown(self) -> None:
            if not world.there:
                self.find_the_store()
            world.client.delete("/items/probe", headers=CATALOGUE)

    return Shop


@pytest.mark.slow
def test_what_is_gone_is_gone_whatever_happens(world: World) -> None:
    """Withdrawn items and erased users, after their acknowledgement: in no reply of any kind."""
    run_state_machine_as_test(
        machine(world),
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            database=None,
            print_blob=True,
        ),
    )
