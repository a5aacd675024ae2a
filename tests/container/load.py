"""Requests at a fixed rate, whatever becomes of them; and a balancer in front of pods."""

import asyncio
import subprocess
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import httpx

from tests.container.pods import Pod
from tests.processes import free_port, wait_until


@dataclass(frozen=True)
class Answer:
    """What became of a request. said: "" where it was answered 200; release: that answered; items: their ids."""

    said: str
    release: str
    items: tuple[str, ...]
    seconds: float


class OpenLoop:
    """Asks so many times a second for as long as the block lasts: nothing is asked later because something is slow."""

    def __init__(self, url: str, photo: bytes, *, rate: float, kept: int = 20) -> None:
        """kept: connections that are used again; they stay with the pod that they were made to."""
        self.answers: list[Answer] = []
        self._url, self._photo, self._rate, self._kept = url, photo, rate, kept
        self._ending = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join()

    @property
    def failed(self) -> list[str]:
        """What was said of those that were not answered."""
        return [answer.said for answer in self.answers if answer.said]

    async def _run(self) -> None:
        began, asked, tasks = time.monotonic(), 0, set()
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=self._kept)
        async with httpx.AsyncClient(base_url=self._url, timeout=30, limits=limits) as client:
            while not self._ending.is_set():
                tasks.add(asyncio.create_task(self._ask(client)))
                asked += 1
                await asyncio.sleep(max(0, began + asked / self._rate - time.monotonic()))
            await asyncio.gather(*tasks)

    async def _ask(self, client: httpx.AsyncClient) -> None:
        began = time.monotonic()
        try:
            response = await client.post("/recommend", files={"image": self._photo}, data={"user_id": "00007"})
            said = "" if response.status_code == 200 else f"{response.status_code} {response.text[:200]}"
            answered = response.json()
        except (httpx.HTTPError, ValueError) as error:
            said, answered = repr(error), {}
        items = tuple(item["item_id"] for item in answered.get("items", ()))
        self.answers.append(Answer(said, answered.get("release", ""), items, time.monotonic() - began))


class Balancer:
    """haproxy over TCP, which asks each pod's readiness as the endpoints of a Service would know it."""

    def __init__(self, folder: Path, pods: Sequence[Pod]) -> None:
        self._port, self._folder = free_port(), folder
        self.url = f"http://127.0.0.1:{self._port}"
        servers = "\n".join(
            f"  server {pod.name} 127.0.0.1:{pod.ports['http']} check inter 200ms fall 1 rise 1" for pod in pods
        )
        folder.mkdir()
        (folder / "haproxy.cfg").write_text(
            "defaults\n  mode tcp\n  timeout connect 2s\n  timeout client 60s\n  timeout server 60s\n"
            "  retries 5\n  option redispatch 1\n"
            f"frontend users\n  bind 127.0.0.1:{self._port}\n  default_backend pods\n"
            f"backend pods\n  balance roundrobin\n  option httpchk GET /readyz\n{servers}\n"
        )

    def __enter__(self) -> Self:
        with (self._folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                ["haproxy", "-db", "-f", self._folder / "haproxy.cfg"], stdout=log, stderr=log
            )
        wait_until(self._answers, seconds=30, log=self._folder / "log")
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/readyz").status_code == 200
        except httpx.TransportError:
            return False
