"""A load generator that costs little: it shares the machine with the server, so its CPU is the server's loss.

Requests are bytes made beforehand, written to connections that stay open; answers are counted, not parsed. Closed loop:
so many clients, each sends its next picture when it has its answer. Open loop: pictures arrive at a rate, as of many
strangers (Poisson), whether or not the server keeps up, and the latency counts from when one should have been sent.

python benchmarks/load.py http://127.0.0.1:3000/recommend --pictures images --clients 8 --seconds 10
python benchmarks/load.py http://127.0.0.1:3000/recommend --pictures images --rate 50 --seconds 10
python benchmarks/load.py http://127.0.0.1:3000/events --events 100 --rate 20 --seconds 10
"""

import argparse
import asyncio
import json
import math
import random
import time
from abc import ABC, abstractmethod
from array import array
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import uvloop
from load_requests import event_requests, read_pictures, request_bytes

PERCENTILES = (50, 90, 99)
CONNECTIONS = 256  # of the open loop; arrivals beyond them wait, and their waiting counts
PATIENCE = 5.0  # seconds that the open loop waits for its last answers


@dataclass(slots=True)
class Load:
    """What came of it. Latencies in milliseconds, of answers with status 200; rate: of those a second;
    lost: requests whose connection broke; unanswered: arrivals of an open loop that got no answer in time."""

    seconds: float = 0.0
    rate: float = 0.0
    statuses: dict[str, int] = field(default_factory=dict)
    lost: int = 0
    unanswered: int = 0
    p50: float = math.nan
    p90: float = math.nan
    p99: float = math.nan
    longest: float = math.nan
    cpu_seconds: float = 0.0


class Connection(asyncio.Protocol):
    """One connection that stays open, with at most one request under way."""

    def __init__(self, answered: Callable[["Connection", int], None], broken: Callable[["Connection"], None]) -> None:
        """answered: called with the status when an answer is complete; broken: called when the connection ends."""
        self._answered, self._broken = answered, broken
        self._transport: Any = None  # uvloop's is no asyncio.Transport
        self._received = bytearray()
        self.since: float | None = None  # what the latency of the request under way counts from

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def send(self, request: bytes, *, since: float) -> None:
        """Send a request. since: time.perf_counter()."""
        self.since = since
        self._transport.write(request)

    def close(self) -> None:
        """Break off, whatever is under way."""
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        self._received += data
        end = self._received.find(b"\r\n\r\n")
        if end < 0:
            return
        head = bytes(self._received[:end]).lower()
        at = head.find(b"\r\ncontent-length:")
        if at < 0:
            raise ValueError(f"an answer without Content-Length: {head[:200]!r}")
        length = int(head[at + 17 :].split(b"\r\n", 1)[0])
        if len(self._received) >= end + 4 + length:
            self._received.clear()
            self._answered(self, int(head[9:12]))

    def connection_lost(self, error: Exception | None) -> None:
        self._broken(self)


class Generator(ABC):
    """What both loops share: requests in turn, and what is noted of the answers."""

    def __init__(self, url: str, requests: list[bytes]) -> None:
        at = urlsplit(url)
        self._host, self._port = at.hostname or "127.0.0.1", at.port or 80
        self._requests = cycle(requests)
        self._latencies = array("d")
        self._statuses: Counter[int] = Counter()
        self._lost = 0
        self._connections: set[Connection] = set()
        self._over = False

    async def _connect(self) -> Connection:
        loop = asyncio.get_running_loop()
        connect = loop.create_connection(lambda: Connection(self._answered, self._broken), self._host, self._port)
        _, connection = await connect
        self._connections.add(connection)
        return connection

    def _answered(self, connection: Connection, status: int) -> None:
        assert connection.since is not None
        if not self._over:
            if status == 200:
                self._latencies.append(time.perf_counter() - connection.since)
            self._statuses[status] += 1
        connection.since = None
        self._next(connection)

    def _broken(self, connection: Connection) -> None:
        self._connections.discard(connection)
        if not self._over:
            self._lost += connection.since is not None
            self._replace(connection)

    @abstractmethod
    def _next(self, connection: Connection) -> None:
        """The connection is free: give it a request, or let it wait for one."""

    @abstractmethod
    def _replace(self, connection: Connection) -> None:
        """The connection broke: make another."""

    def _finish(self, started: float, cpu: float) -> Load:
        """Stop; what is still under way is broken off."""
        self._over = True
        seconds = time.perf_counter() - started
        for connection in list(self._connections):
            connection.close()
        ordered = sorted(1000 * latency for latency in self._latencies)
        load = Load(
            seconds, len(ordered) / seconds, {str(status): n for status, n in sorted(self._statuses.items())},
            self._lost, cpu_seconds=time.process_time() - cpu,
        )  # fmt: skip
        if ordered:
            load.p50, load.p90, load.p99 = (ordered[int(p / 100 * (len(ordered) - 1))] for p in PERCENTILES)
            load.longest = ordered[-1]
        return load


class ClosedLoop(Generator):
    """Clients that each wait for their answer; one that is refused asks again at once, the worst that it can do."""

    async def run(self, *, clients: int, seconds: float) -> Load:
        """Let so many clients ask for so long."""
        connections = [await self._connect() for _ in range(clients)]
        started, cpu = time.perf_counter(), time.process_time()
        for connection in connections:
            self._next(connection)
        await asyncio.sleep(seconds)
        return self._finish(started, cpu)

    def _next(self, connection: Connection) -> None:
        if not self._over:
            connection.send(next(self._requests), since=time.perf_counter())

    def _replace(self, connection: Connection) -> None:
        async def connect_anew() -> None:
            self._next(await self._connect())

        self._reconnecting = asyncio.ensure_future(connect_anew())


class OpenLoop(Generator):
    """Arrivals at a rate. Each takes an idle connection, opens one, or waits for one."""

    async def run(self, *, rate: float, seconds: float, seed: int) -> Load:
        """rate: arrivals a second. The answers of the last ones are waited for, a while."""
        self._idle: list[Connection] = [await self._connect() for _ in range(8)]
        self._waiting: deque[float] = deque()
        self._opening: set[asyncio.Task[None]] = set()
        rng = random.Random(seed)
        started, cpu = time.perf_counter(), time.process_time()
        due = started + rng.expovariate(rate)
        while due < started + seconds:
            # where the timer is late, the latency has it
            await asyncio.sleep(due - time.perf_counter())
            self._arrive(due)
            due += rng.expovariate(rate)
        patient = time.perf_counter() + PATIENCE
        while (self._waiting or self._under_way()) and time.perf_counter() < patient:
            await asyncio.sleep(0.01)
        unanswered = len(self._waiting) + self._under_way()
        load = self._finish(started, cpu)
        load.unanswered = unanswered
        return load

    def _under_way(self) -> int:
        return sum(connection.since is not None for connection in self._connections)

    def _arrive(self, due: float) -> None:
        if self._idle:
            self._idle.pop().send(next(self._requests), since=due)
            return
        self._waiting.append(due)
        if len(self._connections) + len(self._opening) < CONNECTIONS:
            opening = asyncio.ensure_future(self._open())
            self._opening.add(opening)
            opening.add_done_callback(self._opening.discard)

    async def _open(self) -> None:
        self._next(await self._connect())

    def _next(self, connection: Connection) -> None:
        if self._waiting:
            connection.send(next(self._requests), since=self._waiting.popleft())
        else:
            self._idle.append(connection)

    def _replace(self, connection: Connection) -> None:
        if connection in self._idle:  # servers close connections that nobody uses
            self._idle.remove(connection)


def generate(
    url: str, requests: list[bytes], *, seconds: float, clients: int = 8, rate: float | None = None, seed: int = 0,
) -> Load:  # fmt: skip
    """Send these in turn: from `clients` in a closed loop, or at `rate` a second in an open one."""
    if rate is None:
        return uvloop.run(ClosedLoop(url, requests).run(clients=clients, seconds=seconds))
    return uvloop.run(OpenLoop(url, requests).run(rate=rate, seconds=seconds, seed=seed))


def main() -> None:
    """Print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    sent = parser.add_mutually_exclusive_group(required=True)
    sent.add_argument("--pictures", type=Path, help="folder of JPEGs")
    sent.add_argument("--events", type=int, help="in each request, of 2,000 users")
    parser.add_argument("--items", type=int, default=1320, help="that events are about: 0000 and so on")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rate", type=float, help="open loop: arrivals a second, in place of clients")
    parser.add_argument("--seed", type=int, default=0, help="of the arrivals")
    parser.add_argument("--field", action="append", default=["k=10"], help="name=value, sent beside the picture")
    asked = parser.parse_args()
    if asked.pictures is None:
        items = [f"{number:04d}" for number in range(asked.items)]
        requests = event_requests(asked.url, items, events=asked.events, seed=asked.seed)
    else:
        fields = dict(pair.split("=", 1) for pair in asked.field)
        requests = [request_bytes(asked.url, picture, fields) for picture in read_pictures(asked.pictures)]
    load = generate(asked.url, requests, seconds=asked.seconds, clients=asked.clients, rate=asked.rate, seed=asked.seed)
    print(json.dumps(asdict(load)))


if __name__ == "__main__":
    main()
