"""Every picture of a catalogue -> its vector and landmarks; those that an earlier release knows are taken from it."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from service.encoder import preprocessing
from service.encoder.selection import Encoder
from service.errors import BadQuery
from service.recommender.index.landmarks import FEATURES, PACKED, find
from training.data.catalogue import Catalogue
from training.previous.release import Pictures
from training.progress import say, track

BATCH = 32


@dataclass(frozen=True, slots=True)
class Embedded:
    """Every picture of a catalogue. rows: (m,) the item of each, ascending; vectors: (m, dim) float32, unit length;
    landmarks: (m, FEATURES, PACKED) uint8 as `Landmarks.packed`; digests: (m, 32) uint8, sha256 of each."""

    rows: np.ndarray
    vectors: np.ndarray
    landmarks: np.ndarray
    digests: np.ndarray

    def of_items(self, items: int) -> np.ndarray:
        """The vector of each item's first picture: (items, dim) float32, NaN without a picture."""
        found = np.full((items, self.vectors.shape[1]), np.nan, np.float32)
        rows, first = np.unique(self.rows, return_index=True)
        found[rows] = self.vectors[first]
        return found


@dataclass(frozen=True, slots=True)
class _Looked:
    """Some pictures, by their places among those of the catalogue."""

    places: list[int]
    vectors: list[np.ndarray]
    landmarks: list[np.ndarray]


def embed_catalogue(catalogue: Catalogue, encoder: Encoder, *, known: Pictures | None = None) -> Embedded:
    """Every picture as serving would decode it. A further picture that cannot be read is left out, and named.

    known: of a release with the same encoder; its vectors are taken as they are."""
    pictures, digests = catalogue.pictures(), catalogue.picture_digests()
    found = [-1 if known is None else known.digests.get(digest, -1) for digest in digests]
    new = [place for place, at in enumerate(found) if at < 0]
    looked = _look(catalogue, pictures, new, encoder)
    if known is not None and len(new) < len(pictures):
        say(f"index: {len(new)} pictures are embedded; {len(pictures) - len(new)} have their vectors already")
        old = [place for place, at in enumerate(found) if at >= 0]
        at = np.array([found[place] for place in old], np.int64)
        looked.places.extend(old)
        looked.vectors.append(np.asarray(known.vectors[at]).reshape(len(at), encoder.dim))
        looked.landmarks.append(np.asarray(known.landmarks[at]))
    places = np.array(looked.places, np.int64)
    order = np.argsort(places)
    return Embedded(
        np.array([row for row, _ in pictures], np.int64)[places[order]],
        np.concatenate([np.empty((0, encoder.dim), np.float32), *looked.vectors])[order],
        np.concatenate([np.empty((0, FEATURES, PACKED), np.uint8), *looked.landmarks])[order],
        np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 32)[places[order]],
    )


def _look(catalogue: Catalogue, pictures: list[tuple[int, str]], places: list[int], encoder: Encoder) -> _Looked:
    """Decode and embed the pictures at these places."""
    batches = [places[start : start + BATCH] for start in range(0, len(places), BATCH)]
    looked = _Looked([], [], [])

    def decode(batch: list[int]) -> tuple[list[int], list[np.ndarray], list[np.ndarray]]:
        there: list[int] = []
        pixels: list[np.ndarray] = []
        for place in batch:
            row, path = pictures[place]
            try:
                pixels.append(preprocessing.decode(catalogue.read_picture(path)))
                there.append(place)
            except (BadQuery, OSError) as error:
                say(f"items: row {row + 1}: {path} is left out: {error}")
        return there, pixels, [find(each).packed() for each in pixels]

    with ThreadPoolExecutor(2) as pool:
        decoded = pool.map(decode, batches)
        for _ in track(batches, "embedding the catalogue"):
            there, pixels, marks = next(decoded)
            if there:
                looked.places.extend(there)
                looked.vectors.append(encoder.encode(np.stack(pixels)))
                looked.landmarks.append(np.stack(marks))
    return looked
