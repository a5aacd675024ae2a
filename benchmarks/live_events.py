"""What events cost: the latency of recommendations while they come, singly and in batches."""

import argparse
import json
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from load_process import generated, measured, not_200, start
from rich.table import Table
from servers import HERE, Server, vitrine

sys.path.insert(0, str(HERE.parent))

SLOWER_BY_EVENTS = 1.25  # what is asked for
SINGLE, BATCHES, BATCH = 500, 20, 100  # events a second; requests a second, and events of each
ROUNDS = 3


def events(asked: argparse.Namespace, home: Path) -> Table:
    """Latency of recommendations without events and while they come; the events that were taken."""
    home.mkdir()
    asking = {"pictures": asked.pictures, "rate": asked.rate}
    streams = {
        "none": None,
        f"{SINGLE} a second, singly": {"events": 1, "rate": SINGLE},
        f"{BATCH * BATCHES} a second, {BATCH} together": {"events": BATCH, "rate": BATCHES},
    }
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in streams}
    taken: dict[str, list[float]] = {name: [0.0] for name in streams}
    failed: Counter[str] = Counter()
    with vitrine(asked.release, home, encoder=None, VITRINE_STORE=str(home / "live.db")) as server:
        generated(server, pictures=asked.pictures, clients=4, seconds=3)
        for name, stream in list(streams.items()) * ROUNDS:
            with _streaming(server, stream, asked.seconds) as finish:
                found[name].append(measured(server, seconds=asked.seconds, **asking))
                if (said := finish()) is not None:
                    taken[name].append(said["rate"] * (stream or {})["events"])
                    failed[name] += said["lost"] + sum(n for status, n in said["statuses"].items() if status != "200")
    table = Table(
        "events", "taken a second", "failed", "recommendations p50 ms", "p99 ms", "p99 ratio", "asked for", "failed",
        "server's cores",
        title=f"Recommendations at {asked.rate:g} a second while events come",
        caption=f"{ROUNDS} rounds in turn, the least of each",
    )  # fmt: skip
    before = min(each["p99"] for each in found["none"])
    for name, rounds in found.items():
        p99 = min(each["p99"] for each in rounds)
        table.add_row(
            name, f"{max(taken[name]):.0f}", str(failed[name]), f"{min(each['p50'] for each in rounds):.1f}",
            f"{p99:.1f}", f"x {p99 / before:.2f}", f"at most x {SLOWER_BY_EVENTS}", str(sum(map(not_200, rounds))),
            f"{statistics.median(each['cores'] for each in rounds):.2f}",
        )  # fmt: skip
    return table


@contextmanager
def _streaming(
    server: Server, stream: dict[str, Any] | None, seconds: float
) -> Iterator[Callable[[], dict[str, Any] | None]]:
    """Events for a little longer than `seconds`; gives what waits for the end, and returns what came of them."""
    if stream is None:
        yield lambda: None
        return
    process = start(server.url.removesuffix("/recommend") + "/events", seconds=seconds + 2, **stream)
    time.sleep(1)
    try:
        yield lambda: json.loads(process.communicate()[0])
    finally:
        process.kill()
        process.wait()
