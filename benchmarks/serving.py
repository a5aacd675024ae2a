"""The whole /recommend over HTTP, beside the bare encoder, the glued chain and LitServe: same pictures, same cores.

python benchmarks/serving.py releases/1 --pictures demo/images
python benchmarks/serving.py releases/1 --pictures demo/images --open-loop --overload

Every server has its own processes; while one is measured the others are asleep. The rounds alternate, and of each
server the best one counts: what else the machine does can only slow it. The load generator shares the cores with the
server. Needs `pip install fastapi litserve hnswlib`, which nothing else does. Writes
benchmarks/results/serving-<backbone>.json, .md and .svg; a part that is not measured stays as it was.
"""

import argparse
import json
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import load_process
import numpy as np
import onnxruntime
import psutil
from load_requests import CONTENT_TYPE, multipart, read_pictures
from rich.console import Console
from servers import HERE, Server, glued, litserve, vitrine
from serving_report import describe_machine, tables, write

from service.encoder import preprocessing
from service.encoder.selection import available_cpus
from service.recommender.release import Manifest

K = 10
CLIENTS = (1, 8, 32)
BUSY = 8  # clients that keep every core at work
LOADS = (0.3, 0.5, 0.7, 0.9)
CROWD, CROWD_SECONDS = 200, 60
WARM_UP, TRIAL = 2.0, 3.0  # seconds
TRIALS = 2
COMPARED = 8  # pictures
ALIKE = 0.5  # of the items must be the same ones in every server's answers

console = Console(width=None if sys.stdout.isatty() else 160)


def main() -> None:
    """Start, compare, measure, write."""
    asked = _parse()
    # `timeout` and `kill` then leave by the ends of the with-blocks as well, and no server stays behind
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    backbone = (Manifest.read(asked.release).encoder or {})["backbone"]
    pictures = read_pictures(asked.pictures)
    with tempfile.TemporaryDirectory() as work, ExitStack() as started:
        bench = Bench(asked.pictures, asked.seconds)
        servers = start(asked.release, Path(work), bench, encoder=asked.encoder, started=started)
        facts = {"machine": describe_machine(), "servers": {server.name: server.detail for server in servers}}
        facts["alike"] = overlaps(servers, pictures)
        found: dict[str, Any] = {}
        if asked.closed_loop:
            bare = BareLoop(asked.release / "encoder.onnx", pictures)
            found["closed"] = facts | {"rounds": closed_loop(servers, bare, bench, asked.clients, asked.rounds)}
        if asked.open_loop:
            found["open"] = facts | open_loop(servers, bench)
        if asked.overload:
            found["overload"] = facts | overload(servers[0], bench)
    for table in tables(found):
        console.print(table)
    for path in write(HERE / "results" / f"serving-{backbone}", found):
        console.print(path.relative_to(HERE.parent))


class Bench:
    """Runs the load generator against a server, in a process of its own."""

    def __init__(self, pictures: Path, seconds: float) -> None:
        self._pictures, self.seconds = pictures, seconds

    def measure(self, server: Server, *, seconds: float | None = None, **load: Any) -> dict[str, Any]:
        """load: clients, or rate -> the generator's counts, CPU milliseconds a request, memory, and how many cores
        others kept busy meanwhile."""
        started, before, all_before = time.perf_counter(), server.cpu_seconds(), _busy_seconds()
        process = self.start(server, seconds=seconds or self.seconds, **load)
        output, _ = process.communicate()
        if process.returncode:
            raise SystemExit(f"the load generator failed against {server.name}")
        measured = json.loads(output)
        answers = max(1, sum(measured["statuses"].values()))
        spent, generating = server.cpu_seconds() - before, measured.pop("cpu_seconds")
        others = _busy_seconds() - all_before - spent - generating
        measured["server_ms"] = 1000 * spent / answers
        measured["generator_ms"] = 1000 * generating / answers
        measured["others"] = others / (time.perf_counter() - started)
        measured["rss"] = server.rss()
        return measured

    def start(self, server: Server, *, seconds: float, **load: Any) -> subprocess.Popen:
        """Start the generator; it prints what it counted."""
        options = {"seconds": seconds, "field": f"k={K}", **load}
        return load_process.start(server.url, pictures=self._pictures, **options)


def _busy_seconds() -> float:
    times = psutil.cpu_times()
    return times.user + times.nice + times.system + times.irq + times.softirq


class BareLoop:
    """The encoder alone: a thread a core, each with a session of one thread, pixels decoded beforehand, batch 1."""

    def __init__(self, encoder: Path, pictures: Sequence[bytes]) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._sessions = [
            onnxruntime.InferenceSession(str(encoder), options, providers=["CPUExecutionProvider"])
            for _ in range(available_cpus())
        ]
        self._pixels = [preprocessing.decode(picture)[None] for picture in pictures]

    def measure(self, seconds: float) -> dict[str, float]:
        """Pictures a second, and CPU milliseconds for each."""
        counts = [0] * len(self._sessions)
        started, cpu = time.perf_counter(), time.process_time()

        def run(number: int) -> None:
            while time.perf_counter() < started + seconds:
                pixels = self._pixels[counts[number] % len(self._pixels)]
                self._sessions[number].run(["embeddings"], {"images": pixels})
                counts[number] += 1

        threads = [threading.Thread(target=run, args=(number,)) for number in range(len(counts))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        done, spent = sum(counts), time.process_time() - cpu
        return {"rate": done / (time.perf_counter() - started), "cpu_ms": 1000 * spent / done}


def start(release: Path, work: Path, bench: Bench, *, encoder: str | None, started: ExitStack) -> list[Server]:
    """Ours and the peers, each peer as it is fastest here; all of them asleep."""
    cores = available_cpus()
    variants = (
        [lambda: vitrine(release, work, encoder=encoder)],
        [lambda n=n: glued(release, work, threads=n) for n in (0, 1)],
        [lambda n=n, w=w: litserve(release, work, threads=n, workers=w) for n, w in ((0, 1), (1, cores))],
    )
    servers = []
    for each in variants:
        server = started.enter_context(_fastest(each, bench)())
        bench.measure(server, clients=BUSY, seconds=WARM_UP)
        server.sleep()
        servers.append(server)
    return servers


def _fastest(variants: Sequence[Callable[[], Server]], bench: Bench) -> Callable[[], Server]:
    if len(variants) == 1:
        return variants[0]
    rates = [0.0] * len(variants)
    for turn in range(TRIALS * len(variants)):
        number = turn % len(variants)
        with variants[number]() as server:
            bench.measure(server, clients=BUSY, seconds=WARM_UP / 2)
            rates[number] = max(rates[number], bench.measure(server, clients=BUSY, seconds=TRIAL)["rate"])
            console.print(f"{server.name} with {server.detail}: {rates[number]:.1f} a second")
    return variants[int(np.argmax(rates))]


def overlaps(servers: Sequence[Server], pictures: Sequence[bytes]) -> dict[str, float]:
    """Share of our items that each peer answers as well, so that nobody is fast by answering something else."""
    answers = {}
    for server in servers:
        with server.awake():
            answers[server.name] = [_items(server, picture) for picture in pictures[:COMPARED]]
    ours = answers[servers[0].name]
    alike = {
        name: statistics.mean(len(a & b) / len(a) for a, b in zip(ours, theirs, strict=True))
        for name, theirs in answers.items()
    }
    if min(alike.values()) < ALIKE:
        raise SystemExit(f"the servers do not answer alike: {alike}; at least {ALIKE} of the items must be the same")
    return alike


def _items(server: Server, picture: bytes) -> set[str]:
    request = urllib.request.Request(server.url, multipart(picture, {"k": str(K)}), {"Content-Type": CONTENT_TYPE})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return {item["item_id"] for item in json.load(answer)["items"]}


def closed_loop(
    servers: Sequence[Server], bare: BareLoop, bench: Bench, levels: Sequence[int], rounds: int
) -> list[dict[str, Any]]:
    """Every server and the bare loop in turn, round after round, at each number of clients."""
    found = []
    for clients in levels:
        for _ in range(rounds):
            measured: dict[str, Any] = {"clients": clients, "bare": bare.measure(bench.seconds / 2)}
            for server in servers:
                with server.awake():
                    measured[server.name] = bench.measure(server, clients=clients)
            found.append(measured)
    return found


def open_loop(servers: Sequence[Server], bench: Bench) -> dict[str, Any]:
    """Latencies at shares of our peak; the peers get the same pictures a second as we do."""
    alone = {}
    for server in servers:
        with server.awake():
            alone[server.name] = bench.measure(server, clients=1)["p50"]
    with servers[0].awake():
        peak = bench.measure(servers[0], clients=BUSY)["rate"]
    loads = []
    for load in LOADS:
        measured: dict[str, Any] = {"load": load}
        for server in servers:
            with server.awake():
                # not under 100 arrivals each: a percentile of fewer says nothing
                measured[server.name] = bench.measure(
                    server, rate=load * peak, seconds=max(bench.seconds, 100 / (load * peak))
                )
        loads.append(measured)
    return {"peak": peak, "alone": alone, "loads": loads}


def overload(server: Server, bench: Bench) -> dict[str, Any]:
    """A crowd that asks again at once when it is refused, and at the end leaves without waiting for its answers;
    memory and queue meanwhile; the speed a second later."""
    with server.awake():
        before = bench.measure(server, clients=BUSY)
        crowd = bench.start(server, clients=CROWD, seconds=CROWD_SECONDS)
        memory, waiting = [], []
        while crowd.poll() is None:
            memory.append(server.rss())
            with suppress(ValueError):  # a server that does not count who waits
                waiting.append(server.gauge("vitrine_waiting_requests"))
            time.sleep(1)
        assert crowd.stdout is not None
        during = json.load(crowd.stdout)
        time.sleep(1)
        after = bench.measure(server, clients=BUSY)
    return {"before": before, "during": during, "after": after, "memory": memory, "waiting": waiting}


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("release", type=Path)
    parser.add_argument("--pictures", type=Path, required=True, help="folder of JPEGs; 64 of them are sent in turn")
    parser.add_argument("--seconds", type=float, default=8.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--encoder", help="VITRINE_ENCODER of our server: auto, onnxruntime, openvino")
    parser.add_argument("--clients", type=lambda text: [int(part) for part in text.split(",")], default=CLIENTS)
    parser.add_argument("--closed-loop", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--open-loop", action="store_true", help="latencies at 30, 50, 70 and 90 %% of our peak")
    parser.add_argument("--overload", action="store_true", help=f"{CROWD} clients for {CROWD_SECONDS} s")
    return parser.parse_args()


if __name__ == "__main__":
    main()
