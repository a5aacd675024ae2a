"""The photo of a query: decoded, encoded, held against the catalogue."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from service.encoder import preprocessing
from service.encoder.decoding import Box
from service.encoder.selection import Encoder
from service.errors import BadQuery
from service.recommender.candidates import VOTERS, Near
from service.recommender.index.recognition import Match
from service.recommender.query import Query, SimilarQuery
from service.recommender.release import Release

Observe = Callable[[str, float], None]  # a stage and the seconds that it took


@dataclass(frozen=True, slots=True)
class Photo:
    """A photo, as far as it was looked at.

    vector: (dim,) float32, unit length;
    pixels: (224, 224, 3) uint8, as the encoder saw it; None where the vector was known without them;
    match: the item that it shows, as an answer said it, where that was known as well."""

    vector: np.ndarray
    pixels: np.ndarray | None = None
    match: Mapping[str, Any] | None = None


class PhotoReader:
    """Looks at photos for one release."""

    def __init__(self, release: Release, encoder: Encoder | None, *, max_pixels: int, observe: Observe) -> None:
        self.encoder = encoder
        self._release, self._max_pixels, self._observe = release, max_pixels, observe

    def look(self, queries: Sequence[Query] | Sequence[SimilarQuery]) -> list[Photo | None]:
        """Each query's photo, where it has one. Raises BadQuery."""
        asked = [query for query in queries if query.image is not None]
        if not asked:
            return [None] * len(queries)
        pictures = [query.image for query in asked if query.image is not None]
        pixels = self.decode(pictures, [query.box for query in asked])
        photos = iter([Photo(*each) for each in zip(self.encode(pixels), pixels, strict=True)])
        return [next(photos) if query.image is not None else None for query in queries]

    def encode(self, pixels: np.ndarray) -> np.ndarray:
        """(n, 224, 224, 3) uint8 -> (n, dim) float32 unit vectors. For a release with pictures."""
        assert self.encoder is not None, "a release without pictures has no encoder"
        with timed("encode", self._observe):
            return self.encoder.encode(pixels)

    def decode(self, pictures: Sequence[bytes], boxes: Sequence[Box | None]) -> np.ndarray:
        """-> (n, 224, 224, 3) uint8, as the encoder sees them. Raises BadQuery."""
        if self.encoder is None:
            raise BadQuery("this release was made from a catalogue without pictures: it cannot look", field="image")
        how = self._release.preprocessing
        with timed("decode", self._observe):
            decoded = [
                preprocessing.decode(picture, box=box, max_pixels=self._max_pixels, preprocessing=how)
                for picture, box in zip(pictures, boxes, strict=True)
            ]
            return decoded[0][None] if len(decoded) == 1 else np.stack(decoded)

    def match(self, photo: Photo) -> Match | None:
        """The item that a photo shows, where the release can tell."""
        if photo.pixels is None:
            row = None if photo.match is None else self._release.items.find(photo.match["item_id"])
            return None if row is None or photo.match is None else Match(row, photo.match["confidence"])
        if self._release.recogniser is None:
            return None
        with timed("match", self._observe):
            return self._release.recogniser.match(photo.pixels)

    def describe_match(self, match: Match | None) -> dict[str, Any] | None:
        """As an answer says it."""
        if match is None:
            return None
        return {"item_id": self._release.items.ids[match.row], "confidence": match.confidence}

    def describe(self, near: Near, *, in_catalogue: bool) -> dict[str, Any]:
        """What a photo seems to be: the category that its neighbours vote for."""
        votes: dict[str, float] = {}
        total = 0.0
        for row, cosine in zip(near.rows[:VOTERS].tolist(), near.cosines[:VOTERS].tolist(), strict=True):
            weight = max(cosine, 0.0)
            total += weight
            category = self._release.items.describe(row)["category"]
            for name in [category] if isinstance(category, str) else (category or ())[:1]:
                votes[name] = votes.get(name, 0.0) + weight
        first = max(votes, key=lambda name: (votes[name], name)) if votes else None
        confidence = votes[first] / total if first is not None and total else 0.0
        return {"category": first, "confidence": confidence, "in_catalogue": in_catalogue}

    def remember(self, photo: Photo) -> dict[str, Any]:
        """The event by which a photo is known next time. The photo itself is not kept."""
        assert self._release.manifest.encoder is not None, "it made the vector"
        kept = [round(float(part), 4) for part in photo.vector]
        return {"event": "view", "vector": kept, "encoder": self._release.manifest.encoder["fingerprint"]}

    def degraded(self) -> list[str]:
        """What is to be said of an answer whose picture this thread has just had encoded."""
        return ["encoder"] if self.encoder is not None and self.encoder.degraded else []


@contextmanager
def timed(stage: str, observe: Observe) -> Iterator[None]:
    """Observe the seconds of the block."""
    started = time.perf_counter()
    yield
    observe(stage, time.perf_counter() - started)
