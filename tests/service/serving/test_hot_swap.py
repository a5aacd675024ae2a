"""Another release takes over while the service answers: by the admin route, and by a pointer file."""

import time
from collections import Counter
from functools import partial
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest
import tritonclient.grpc as triton_grpc

from service.recommender.pipeline import Recommender
from service.recommender.query import Query
from service.recommender.release import Release
from tests.processes import Clients, Service, serve, wait_until

ADMIN = {"X-Admin-Key": "an admin's secret"}
USERS = [f"{number:05d}" for number in range(20)]


@pytest.fixture(scope="module")
def answers(releases: Path) -> dict[str, list[list[str]]]:
    """release -> the items for each of the users."""
    found = {}
    for number in ("1", "2"):
        recommender = Recommender(Release.open(releases / number))
        # one by one: the last bits of a large batch's scores are others, and two items may be that close
        given = [recommender.recommend([Query(user_id=user)])[0] for user in USERS]
        found[number] = [[item.item_id for item in answer.items] for answer in given]
    assert found["1"] != found["2"]
    return found


def switch(service: Service, number: object, **headers: str) -> httpx.Response:
    """Ask for another release."""
    return service.http.post("/admin/release", json={"release": number}, headers=headers or ADMIN)


class Users(Clients):
    """Eight clients, half of them over gRPC, that ask as long as the block lasts and check each answer."""

    def __init__(self, service: Service, answers: dict[str, list[list[str]]]) -> None:
        self.seen: Counter[str] = Counter()
        self.wrong: list[str] = []
        self._service, self._answers = service, answers
        asks = (self._over_http, self._over_grpc)
        super().__init__([partial(asks[number % 2], number) for number in range(8)])

    def _over_http(self, at: int) -> None:
        with httpx.Client(base_url=self._service.http.base_url, timeout=30) as client:
            while not self.done.is_set():
                at = (at + 1) % len(USERS)
                answer = client.post("/recommend", json={"user_id": USERS[at]})
                if answer.status_code != 200:
                    self.wrong.append(answer.text)
                    continue
                body = answer.json()
                self._check(at, body["release"], [item["item_id"] for item in body["items"]])

    def _over_grpc(self, at: int) -> None:
        with triton_grpc.InferenceServerClient(self._service.grpc) as client:
            while not self.done.is_set():
                at = (at + 1) % len(USERS)
                user = triton_grpc.InferInput("USER_ID", [1], "BYTES")
                user.set_data_from_numpy(np.array([USERS[at].encode()], object))
                try:
                    answer = client.infer("recommender", [user])
                except triton_grpc.InferenceServerException as error:
                    self.wrong.append(str(error))
                    continue
                items = [item.decode() for item in answer.as_numpy("ITEM_ID")[0]]
                self._check(at, answer.as_numpy("RELEASE")[0].decode(), items)

    def _check(self, at: int, release: str, items: list[str]) -> None:
        self.seen[release] += 1
        if items != self._answers[release][at]:
            self.wrong.append(f"release {release}, user {USERS[at]}: {items}")


@pytest.mark.slow
def test_twenty_switches_under_load_lose_and_mix_nothing(
    releases: Path, answers: dict[str, list[list[str]]], tmp_path: Path
) -> None:
    """No request fails, each reply is wholly one release's, and memory does not grow."""
    with serve(releases / "1", tmp_path, {"VITRINE_ADMIN_KEY": ADMIN["X-Admin-Key"]}) as service:
        process = psutil.Process(service.process.pid)
        memory = []
        with Users(service, answers) as clients:
            for turn in range(20):
                number = "21"[turn % 2]
                assert switch(service, number).json()["release"] == number
                time.sleep(0.4)
                memory.append(sum(each.memory_info().rss for each in (process, *process.children(recursive=True))))
        assert clients.wrong == []
        assert min(clients.seen["1"], clients.seen["2"]) > 50
        assert memory[-1] <= 1.05 * memory[1]
        assert 'vitrine_release{release="1"} 1.0' in service.metrics_page()
        assert 'vitrine_release{release="2"}' not in service.metrics_page()


def test_what_cannot_take_over_leaves_the_old_release_serving(releases: Path, tmp_path: Path) -> None:
    """Damaged, absent, or no number at all: each is refused with its reason; without the key nobody gets that far."""
    with serve(releases / "1", tmp_path, {"VITRINE_ADMIN_KEY": ADMIN["X-Admin-Key"]}) as service:
        assert switch(service, "2", **{"X-Admin-Key": "a wrong secret"}).status_code == 401
        refused = switch(service, "3")
        assert refused.status_code == 409
        assert "items.parquet" in refused.json()["detail"]
        assert "release that answers goes on" in refused.json()["detail"]
        for number, status in (("9", 404), ("../1", 404), ("", 404), (2, 400), (None, 400)):
            assert switch(service, number).status_code == status, number
        assert service.http.post("/admin/release", content=b"{", headers=ADMIN).status_code == 400
        assert service.http.post("/recommend", json={}).json()["release"] == "1"
        assert service.metric("vitrine_switch_failures_total") == 1


def test_without_an_admin_key_there_is_no_such_route(server: httpx.Client) -> None:
    """Off by default."""
    assert server.post("/admin/release", json={"release": "1"}, headers=ADMIN).status_code == 404


@pytest.mark.slow
def test_a_pointer_file_is_followed_and_survives_a_restart(releases: Path, tmp_path: Path) -> None:
    """It decides at start and while running; the admin route writes it; what it names wrongly changes nothing."""
    pointer = releases / "current"
    pointer.write_text("2\n")
    settings = {"VITRINE_ADMIN_KEY": ADMIN["X-Admin-Key"]}

    def serving(service: Service) -> str:
        return service.http.post("/recommend", json={}).json()["release"]

    with serve(pointer, tmp_path / "one", settings) as service:
        assert serving(service) == "2"
        pointer.write_text("1\n")
        wait_until(lambda: serving(service) == "1", seconds=10)
        for wrong in ("3\n", "99\n", "\n", "1\n2\n"):
            pointer.write_text(wrong)
            time.sleep(1.5)
            assert serving(service) == "1"
        assert switch(service, "2").status_code == 200
        assert pointer.read_text() == "2\n"
    with serve(pointer, tmp_path / "two", settings) as service:
        assert serving(service) == "2"
