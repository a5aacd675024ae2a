"""Every picture decoded once, into one memory-mapped array that all epochs and stages read."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from service import images
from service.encoder import available_cpus
from service.errors import BadQuery
from training.catalogue import Catalogue
from training.progress import track

if TYPE_CHECKING:
    import torch

# Augmentation crops from the whole square that serving takes its centre of.
SQUARE = images.Preprocessing(crop=images.PREPROCESSING.shorter_side)


@dataclass(frozen=True, slots=True)
class Pictures:
    """pixels: (n, 256, 256, 3) uint8, memory-mapped; rows: (n,) the item row of each."""

    pixels: np.ndarray
    rows: np.ndarray

    def take(self, positions: np.ndarray) -> "torch.Tensor":
        """The whole squares at these positions: (n, 256, 256, 3) uint8."""
        import torch  # four seconds, which those who only check a catalogue need not wait

        return torch.from_numpy(self.pixels[np.sort(positions)][np.argsort(np.argsort(positions))])

    def centre(self, positions: np.ndarray) -> "torch.Tensor":
        """What serving would see of them: (n, 224, 224, 3) uint8."""
        margin = (SQUARE.crop - images.PREPROCESSING.crop) // 2
        return self.take(positions)[:, margin:-margin, margin:-margin]


def decode_catalogue(catalogue: Catalogue, folder: Path) -> None:
    """Decode every picture of the catalogue into `folder`: pixels.npy, rows.npy and unreadable.json."""
    rows = catalogue.pictured()
    size = SQUARE.crop
    shape = (len(rows), size, size, 3)
    pixels = np.lib.format.open_memmap(folder / "pixels.npy", mode="w+", dtype=np.uint8, shape=shape)
    unreadable: dict[int, str] = {}
    readable = np.zeros(len(rows), dtype=bool)

    def decode(position: int) -> None:
        try:
            pixels[position] = images.decode(catalogue.picture(rows[position]), preprocessing=SQUARE)
            readable[position] = True
        except (BadQuery, OSError) as error:
            unreadable[int(rows[position])] = str(error)

    with ThreadPoolExecutor(available_cpus()) as pool:
        for _ in track(pool.map(decode, range(len(rows))), "decoding pictures", total=len(rows)):
            pass
    pixels.flush()
    # positions of unreadable pictures stay in pixels.npy, and nothing refers to them
    np.save(folder / "rows.npy", np.where(readable, rows, -1))
    listed = {str(row): unreadable[row] for row in sorted(unreadable)}
    (folder / "unreadable.json").write_text(json.dumps(listed, indent=1))


def open_pictures(folder: Path) -> tuple[Pictures, dict[int, str]]:
    """What `decode_catalogue` left: the pictures, and the unreadable ones by item row."""
    pixels = np.load(folder / "pixels.npy", mmap_mode="r")
    rows = np.load(folder / "rows.npy")
    unreadable = {int(row): text for row, text in json.loads((folder / "unreadable.json").read_text()).items()}
    if unreadable:
        pixels, rows = pixels[rows >= 0], rows[rows >= 0]
    return Pictures(pixels, rows), unreadable


def find_unreadable(catalogue: Catalogue) -> dict[int, str]:
    """Try every picture without keeping any: item row -> the decoder's message."""
    unreadable: dict[int, str] = {}

    def attempt(row: int) -> None:
        try:
            images.decode(catalogue.picture(row))
        except (BadQuery, OSError) as error:
            unreadable[int(row)] = str(error)

    rows = catalogue.pictured()
    with ThreadPoolExecutor() as pool:
        for _ in track(pool.map(attempt, rows), "decoding pictures", total=len(rows)):
            pass
    return dict(sorted(unreadable.items()))
