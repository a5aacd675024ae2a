"""Clients of a service whose encoder is a Triton server, and what it must answer them."""

import time
from collections import Counter
from functools import partial
from pathlib import Path

import httpx

from service.recommender.pipeline import Recommender
from service.recommender.release import Release
from tests.processes import Clients, Service, Triton


def behind(server: Triton, **more: str) -> dict[str, str]:
    """Settings of a service whose encoder is there."""
    return {"VITRINE_ENCODER": "triton", "VITRINE_TRITON_URL": server.grpc, **more}


def photos(boutique_folder: Path) -> list[bytes]:
    """All pictures of the catalogue."""
    return [path.read_bytes() for path in sorted((boutique_folder / "images").iterdir())]


class Load(Clients):
    """Clients that ask for recommendations one after the other, until they are told to stop."""

    def __init__(self, service: Service, pictures: list[bytes], *, clients: int = 8) -> None:
        self.url = str(service.http.base_url)
        self.answers: list[tuple[float, int, dict]] = []  # when, status, body
        self.lost: list[str] = []
        self._pictures = pictures
        super().__init__([partial(self._ask, number) for number in range(clients)])

    @property
    def statuses(self) -> Counter[int]:
        """How often each came."""
        return Counter(status for _, status, _ in self.answers)

    def _ask(self, number: int) -> None:
        with httpx.Client(timeout=30) as client:
            while not self.done.is_set():
                number += 1
                at = number * 7 % len(self._pictures)
                try:
                    answer = client.post(f"{self.url}/recommend", files={"image": self._pictures[at]}, data={"k": "10"})
                    self.answers.append((time.monotonic(), answer.status_code, {"at": at} | answer.json()))
                except httpx.TransportError as error:
                    self.lost.append(repr(error))


def expected(release: Path, pictures: list[bytes]) -> list[list[str]]:
    """The items that a release gives for each picture, in this process."""
    from service.recommender.query import Query

    recommender = Recommender(Release.open(release))
    return [[item.item_id for item in recommender.recommend([Query(image=picture)])[0].items] for picture in pictures]


def same_items(body: dict, answers: dict[str, list[list[str]]]) -> bool:
    """Whether an answer is wholly that of the release that it names."""
    return [item["item_id"] for item in body["items"]] == answers[body["release"]][body["at"]]
