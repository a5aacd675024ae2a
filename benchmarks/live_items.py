"""What many live items cost: latency, and how often an item comes first for another view of its picture."""

import argparse
import base64
import io
import json
import random
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import torch
from live_garments import KEY, garments
from load_process import generated, measured
from PIL import Image, ImageEnhance
from rich.table import Table
from servers import HERE, vitrine

sys.path.insert(0, str(HERE.parent))
from service.encoder import preprocessing
from training.demo.garments import CATEGORIES
from training.encoder.augmentation import augment

SLOWER, RECALL = 1.2, 0.95  # what is asked for
LINES = 50  # items put in one request
ROUNDS = 3

View = Callable[[bytes, int], Image.Image]  # (picture, seed)


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
