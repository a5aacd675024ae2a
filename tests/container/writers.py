"""Clients that change items and report events, and that send again what was not answered, with the same key."""

import itertools
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Self

import httpx

RETRIED = (429, 503)  # what asks for another attempt
PATIENCE = 30  # seconds within which a request is answered, however often it has to be sent


class Writer:
    """One client. sequences: of what was acknowledged; repeated: why something had to be sent again; refused: what was
    answered otherwise."""

    def __init__(self, url: str, catalogue_key: str, name: str) -> None:
        """name: that no other client has."""
        self._client = httpx.Client(base_url=url, timeout=10, headers={"X-Catalogue-Key": catalogue_key})
        self._name, self._sent = name, 0
        self.sequences: list[int] = []
        self.repeated: list[str] = []
        self.refused: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def send(self, method: str, path: str, **body: Any) -> dict[str, Any]:
        """Send until it is answered; every third is sent once more, as by one who has not heard the answer."""
        self._sent += 1
        headers = {"Idempotency-Key": f"{self._name}-{self._sent}"}
        reply = self._until_answered(method, path, headers, body)
        if self._sent % 3 == 0 and (again := self._until_answered(method, path, headers, body)) != reply:
            self.refused.append(f"{method} {path} was done twice: {reply}, {again}")
        self.sequences.append(reply.get("sequence", 0))
        return reply

    def _until_answered(self, method: str, path: str, headers: dict[str, str], body: dict[str, Any]) -> dict[str, Any]:
        ending = time.monotonic() + PATIENCE
        while time.monotonic() < ending:
            try:
                response = self._client.request(method, path, headers=headers, **body)
            except httpx.TransportError as error:
                self.repeated.append(repr(error))
                continue
            if response.status_code == 200:
                return response.json()
            said = f"{method} {path}: {response.status_code} {response.text[:200]}"
            if response.status_code not in RETRIED:
                self.refused.append(said)
                return {}
            self.repeated.append(said)
            time.sleep(0.2)
        self.refused.append(f"{method} {path}: no answer within {PATIENCE} s")
        return {}


class Merchant(Writer):
    """Brings items, changes their prices, and withdraws every third. prices: item -> its price, None where it was
    withdrawn."""

    def work(self, done: threading.Event, photos: Sequence[bytes]) -> None:
        """Until it is told to end."""
        self.prices: dict[str, float | None] = {}
        for number in itertools.count():
            item_id, price = f"{self._name}-{number}", 10.0 + number
            made = {"attributes": f'{{"title": "{item_id}", "category": "dress", "price": {price}}}'}
            photo = photos[number % len(photos)]
            for method, body, priced in (
                ("PUT", {"data": made, "files": {"image": photo}}, price),
                ("PATCH", {"json": {"price": price / 2}}, price / 2),
                ("DELETE", {}, None),
            )[: 3 if number % 3 == 0 else 2]:
                if done.is_set():
                    return
                self.send(method, f"/items/{item_id}", **body)
                self.prices[item_id] = priced
                done.wait(0.2)


class Visitor(Writer):
    """Reports what users did. events: (user, item, timestamp) of each."""

    def work(self, done: threading.Event, items: Sequence[str]) -> None:
        """Until it is told to end."""
        self.events: list[tuple[str, str, float]] = []
        began = time.time() - 3600
        for number in itertools.count():
            if done.is_set():
                return
            event = (f"{self._name}-{number % 5}", items[number % len(items)], began + number)
            sent = dict(zip(("user_id", "item_id", "timestamp"), event, strict=True))
            self.send("POST", "/events", json={**sent, "event": "like"})
            self.events.append(event)
            done.wait(0.1)


def until_alike(ask: Callable[[], Sequence[Any]], *, seconds: float = 10) -> Any:
    """What all answer, once they answer the same."""
    ending = time.monotonic() + seconds
    while True:
        answers = ask()
        if all(answer == answers[0] for answer in answers):
            return answers[0]
        assert time.monotonic() < ending, list(_differences(answers))
        time.sleep(0.1)


def _differences(answers: Sequence[Any], path: str = "") -> Iterator[tuple[str, Sequence[Any]]]:
    """Where they are not the same, and what each says there."""
    if all(isinstance(answer, dict) for answer in answers):
        for key in dict.fromkeys(key for answer in answers for key in answer):
            yield from _differences([answer.get(key) for answer in answers], f"{path}/{key}")
    elif all(isinstance(answer, list) for answer in answers) and len({len(answer) for answer in answers}) == 1:
        for at, each in enumerate(zip(*answers, strict=True)):
            yield from _differences(each, f"{path}/{at}")
    elif any(answer != answers[0] for answer in answers):
        yield path, answers
