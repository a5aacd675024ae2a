"""A shop of coloured squares, whose encoder sees their colours: what a photo shows is known, and asked quickly."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import nn

from service.encoder.engines import OnnxRuntime
from service.recommender.release import Manifest
from service.recommender.scoring.weights import Blend
from service.recommender.user_keys import DEFAULT_USER_KEY
from training.data.catalogue import Catalogue
from training.data.catalogue_reader import read
from training.data.pictures import COLOURS as COLOURS_FILE
from training.data.pictures import decode_catalogue, open_pictures
from training.encoder import export
from training.encoder.backbones import Embedder
from training.index import embedding
from training.packaging import package
from training.ranker import term_weights

DIM = 16
COLOURS = {"red": (200, 40, 40), "green": (40, 170, 60), "blue": (50, 70, 200), "yellow": (210, 190, 40)}


class ColourBackbone(nn.Module):
    """Mean colours of a 2 x 2 grid, projected."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(12, DIM)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.head(nn.functional.avg_pool2d(pixels, 112).flatten(1))


def photos(count: int, *, rng: np.random.Generator, colours: Sequence[str] = tuple(COLOURS)) -> list[bytes]:
    """Squares of these colours in turn, each in a shade of its own, lit from one side."""
    found = []
    for number in range(count):
        light = 1 + rng.normal(0, 0.15, (2, 2, 1)) + rng.normal(0, 0.15)
        shade = np.array(COLOURS[colours[number % len(colours)]]) + rng.normal(0, 18, 3)
        found.append(_png(np.kron(shade * light, np.ones((32, 32, 1)))))
    return found


def noise(count: int, *, rng: np.random.Generator) -> list[bytes]:
    """Pictures of nothing that the shop has."""
    return [_png(rng.integers(0, 256, (64, 64, 3))) for _ in range(count)]


def _png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


def write_catalogue(folder: Path, *, items: int = 400) -> Catalogue:
    """Squares and the names of their colours; nobody has touched any."""
    (folder / "images").mkdir(parents=True)
    for number, picture in enumerate(photos(items, rng=np.random.default_rng(0))):
        (folder / "images" / f"{number}.png").write_bytes(picture)
    names = list(COLOURS)
    rows = [
        {"item_id": f"i{number}", "image": f"images/{number}.png", "title": f"Item {number}",
         "category": names[number % len(names)]}
        for number in range(items)
    ]  # fmt: skip
    pd.DataFrame(rows).to_csv(folder / "items.csv", index=False)
    return read(folder)


def make_release(folder: Path) -> Path:
    """Release 1 of it, in a folder of its own."""
    catalogue = write_catalogue(folder / "catalogue")
    parts = folder / "parts"
    parts.mkdir()
    decode_catalogue(catalogue, parts)
    pictures, _ = open_pictures(parts)
    torch.manual_seed(0)
    sample = pictures.centre(np.arange(16))
    export.export(Embedder(ColourBackbone()), parts / "encoder.onnx", pictures=sample, ingredients={"backbone": "tiny"})
    network = OnnxRuntime(parts / "encoder.onnx", threads=1)
    index = embedding.write(parts, catalogue, pictures, network, exact_below=1000, recall=0.99, seed=0)
    Blend(term_weights.UNLEARNED).save(parts / "blend.json")
    manifest = Manifest(
        release=0, created="", preprocessing={"shorter_side": 256, "crop": 224, "resample": "bilinear"},
        rows={"items": len(catalogue.items), "pictured": len(catalogue.items), "users": 0, "interactions": 0},
        data={"fingerprint": catalogue.fingerprint(), "cutoff": None}, training={"split_column": None}, code={},
        encoder={"backbone": "tiny", "dim": DIM, "precisions": {}}, index=index, ranker=None,
    )  # fmt: skip
    made = package.Parts(
        catalogue=catalogue, seen=None, encoder=parts, precisions={}, least_overlap=1.0, index=parts, ranker=None,
        blend=parts / "blend.json", manifest=manifest, colours=parts / COLOURS_FILE,
    )  # fmt: skip
    releases = folder / "releases"
    releases.mkdir()
    return package.package(made, releases, number=1, user_key=DEFAULT_USER_KEY, report=lambda *_: {})
