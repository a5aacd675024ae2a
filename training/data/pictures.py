"""Every picture decoded once, into one memory-mapped array that all epochs and stages read."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from service.encoder import preprocessing
from service.encoder.selection import available_cpus
from service.errors import BadQuery
from service.recommender.index.landmarks import find
from training.data import duplicates
from training.data.catalogue import Catalogue
from training.progress import track

if TYPE_CHECKING:
    import torch

# Augmentation crops from the whole square that serving takes its centre of.
SQUARE = preprocessing.Preprocessing(crop=preprocessing.PREPROCESSING.shorter_side)


class Squares(Protocol):
    """The pixels of pictures, by their positions: an array, or what decodes them when they are asked for."""

    def __getitem__(self, positions: np.ndarray, /) -> np.ndarray: ...


COLOURS = "colours.npy"


@dataclass(frozen=True, slots=True)
class Pictures:
    """pixels: (n, 256, 256, 3) uint8; rows: (n,) the item row of each."""

    pixels: Squares
    rows: np.ndarray

    def take(self, positions: np.ndarray) -> "torch.Tensor":
        """The whole squares at these positions: (n, 256, 256, 3) uint8."""
        import torch  # four seconds, which those who only check a catalogue need not wait

        return torch.from_numpy(self.pixels[np.sort(positions)][np.argsort(np.argsort(positions))])

    def centre(self, positions: np.ndarray) -> "torch.Tensor":
        """What serving would see of them: (n, 224, 224, 3) uint8."""
        margin = (SQUARE.crop - preprocessing.PREPROCESSING.crop) // 2
        return self.take(positions)[:, margin:-margin, margin:-margin]


@dataclass(frozen=True, slots=True)
class Examined:
    """What was found while the pictures were decoded. unreadable: item row -> relative path -> the decoder's message;
    same: (items,) int32, items whose first pictures are nearly the same have the same number, 0 has no other."""

    unreadable: dict[int, dict[str, str]]
    same: np.ndarray


def decode_catalogue(catalogue: Catalogue, folder: Path) -> None:
    """Decode the first readable picture of every item into `folder`: pixels.npy, rows.npy, colours.npy, same.npy and
    unreadable.json."""
    rows = catalogue.pictured()
    size = SQUARE.crop
    shape = (len(rows), size, size, 3)
    pixels = np.lib.format.open_memmap(folder / "pixels.npy", mode="w+", dtype=np.uint8, shape=shape)
    unreadable: dict[int, dict[str, str]] = {}
    readable = np.zeros(len(rows), dtype=bool)
    colours = np.zeros((len(rows), duplicates.COARSE**2 * 3), np.uint8)

    def decode(position: int) -> None:
        row = int(rows[position])
        for path in catalogue.items.at[row, "images"]:
            try:
                pixels[position] = preprocessing.decode(catalogue.read_picture(path), preprocessing=SQUARE)
            except (BadQuery, OSError) as error:
                unreadable.setdefault(row, {})[path] = str(error)
            else:
                readable[position] = True
                colours[position] = duplicates.coarse(pixels[position])
                return

    with ThreadPoolExecutor(available_cpus()) as pool:
        for _ in track(pool.map(decode, range(len(rows))), "decoding pictures", total=len(rows)):
            pass
    pixels.flush()
    there = np.flatnonzero(readable)
    same = find_same(catalogue, rows[there], colours[there], lambda at: pixels[there[at]])
    # positions of unreadable pictures stay in pixels.npy, and nothing refers to them
    save_examined(folder, rows=np.where(readable, rows, -1), colours=colours[there], same=same, unreadable=unreadable)


def save_examined(
    folder: Path,
    *,
    rows: np.ndarray,
    colours: np.ndarray,
    same: np.ndarray,
    unreadable: dict[int, dict[str, str]],
) -> None:
    """Write rows.npy, colours.npy, same.npy and unreadable.json. rows: (n,); colours: of those that can be read, in
    their order; same, unreadable: as `Examined` has them."""
    np.save(folder / "rows.npy", rows)
    np.save(folder / COLOURS, colours)
    np.save(folder / "same.npy", same)
    listed = {str(row): unreadable[row] for row in sorted(unreadable)}
    (folder / "unreadable.json").write_text(json.dumps(listed, indent=1))


def open_examined(folder: Path) -> Examined:
    """What `save_examined` left."""
    unreadable = {int(row): found for row, found in json.loads((folder / "unreadable.json").read_text()).items()}
    return Examined(unreadable, np.load(folder / "same.npy"))


def open_pictures(folder: Path) -> tuple[Pictures, Examined]:
    """What `decode_catalogue` left."""
    pixels = np.load(folder / "pixels.npy", mmap_mode="r")
    rows = np.load(folder / "rows.npy")
    if (rows < 0).any():
        pixels, rows = pixels[rows >= 0], rows[rows >= 0]
    return Pictures(pixels, rows), open_examined(folder)


def examine(catalogue: Catalogue) -> Examined:
    """Try every picture without keeping any."""
    unreadable: dict[int, dict[str, str]] = {}
    colours: dict[int, np.ndarray] = {}

    def attempt(picture: tuple[int, str]) -> None:
        row, path = picture
        try:
            pixels = preprocessing.decode(catalogue.read_picture(path), preprocessing=SQUARE)
        except (BadQuery, OSError) as error:
            unreadable.setdefault(row, {})[path] = str(error)
        else:
            if path == catalogue.items.at[row, "images"][0]:
                colours[row] = duplicates.coarse(pixels)

    pictures = catalogue.pictures()
    with ThreadPoolExecutor() as pool:
        for _ in track(pool.map(attempt, pictures), "decoding pictures", total=len(pictures)):
            pass
    rows = np.array(sorted(colours), np.int64)
    same = find_same(
        catalogue,
        rows,
        np.array([colours[row] for row in rows.tolist()], np.uint8).reshape(len(rows), duplicates.COARSE**2 * 3),
        lambda at: preprocessing.decode(catalogue.picture(int(rows[at])), preprocessing=SQUARE),
    )
    return Examined({row: dict(sorted(unreadable[row].items())) for row in sorted(unreadable)}, same)


def find_same(
    catalogue: Catalogue,
    rows: np.ndarray,
    colours: np.ndarray,
    pixels: Callable[[int], np.ndarray],
    *,
    before: np.ndarray | None = None,
) -> np.ndarray:
    """`Examined.same`. rows: (n,) items; colours: (n, d) of their pictures; pixels: gives those of one of the n;
    before: as `duplicates.find`."""
    same = np.zeros(len(catalogue.items), np.int32)
    same[rows] = duplicates.find(colours, lambda at: find(pixels(at)), before=before)
    return same
