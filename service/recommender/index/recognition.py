"""Whether a photo shows an item of the catalogue itself: small features that lie in both pictures alike.

The encoder says what looks alike, and two shirts of one kind are as near to each other as two photos of one shirt.
Landmarks tell them apart: corners with a binary description each (ORB; Rublee et al., 2011) and a tint. Where many
corners of a photo have their like in a picture, all moved, turned and scaled in one and the same way, both show the
same thing. Which pictures are worth that comparison is voted by the corners: each for those that have one described
alike.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from service.recommender.changes.growing import Growing
from service.recommender.index.gallery import Gallery
from service.recommender.index.landmarks import agreement, find, mirrored

# Corners that agree, from which a photo is held against no other picture. Of garments photographed anew 9 of 10 have so
# many with their own picture (drawn ones: 4 of 10), and at most 45 with another.
BEYOND_DOUBT = 60


@dataclass(frozen=True, slots=True)
class Match:
    """The item that a photo shows. confidence: 0 to 1, as often right among photos of items and of others alike."""

    row: int
    confidence: float


@dataclass(frozen=True, slots=True)
class Certainty:
    """How sure corners that agree make: a logistic function, fitted by training/index/recognition.py.

    at: the confidence from which it is said."""

    agreement: float  # weight of log(1 + corners)
    bias: float
    at: float

    def of(self, agreement: int) -> float:
        """0 to 1."""
        sure = self.bias + self.agreement * math.log1p(agreement)
        return 1 / (1 + math.exp(-max(min(sure, 500.0), -500.0)))


class Recogniser:
    """Finds the item that a photo shows."""

    def __init__(self, rows: np.ndarray, gallery: Gallery, certainty: Certainty) -> None:
        """rows: (pictures,) the item of each picture of the gallery."""
        self._rows, self._gallery, self._certainty = Growing(rows), gallery, certainty
        self._sealed = len(rows)
        self._places: dict[int, list[int]] = {}  # of items whose pictures were changed: all that they ever got

    @classmethod
    def open(cls, packed: Path, descriptions: Path, rows: np.ndarray, facts: Mapping[str, Any]) -> "Recogniser":
        """Open landmarks.npy and landmarks.faiss of a release. facts: what its manifest says of `match`. Raises
        ValueError."""
        gallery = Gallery.open(packed, descriptions)
        if len(gallery) != len(rows):
            raise ValueError(f"{packed.name} has {len(gallery)} pictures, the index {len(rows)}")
        return cls(rows, gallery, Certainty(**{name: float(facts[name]) for name in Certainty.__slots__}))

    def put(self, row: int, packed: Sequence[np.ndarray]) -> None:
        """Give an item these pictures, each (FEATURES, PACKED) uint8, in place of those that it has; none: it has no
        picture any more."""
        own = [*self._of_release(row), *self._places.get(row, ())]
        for position in own:
            self._gallery.show(position, False)
        for each in packed:
            # a feed sends the same pictures again and again
            position = next((at for at in own if np.array_equal(self._gallery.packed(at), each)), -1)
            if position < 0:
                position = self._gallery.add(each)
                self._rows.append(np.array([row]))
                self._places.setdefault(row, []).append(position)
            self._gallery.show(position, True)

    def restore(self, row: int) -> None:
        """Give an item of the release its own pictures back."""
        self.put(row, ())
        for position in self._of_release(row):
            self._gallery.show(position, True)

    def _of_release(self, row: int) -> list[int]:
        first, last = np.searchsorted(self._rows.array[: self._sealed], [row, row + 1])
        return list(range(int(first), int(last)))

    def match(self, pixels: np.ndarray) -> Match | None:
        """The item that a photo shows, or None. pixels: (side, side, 3) uint8, as the encoder sees it."""
        for look in (find, mirrored):
            photo = look(pixels)
            agreed: dict[int, int] = {}
            for position in chain.from_iterable(self._gallery.likely(photo)):
                if position not in agreed:
                    agreed[position] = agreement(photo, self._gallery.picture(position))
                    if agreed[position] >= BEYOND_DOUBT and self._certainty.of(agreed[position]) >= self._certainty.at:
                        break  # nor are votes among the pictures that came since counted
            # of the same number that with most votes
            position = max(agreed, key=agreed.__getitem__, default=-1)
            corners = agreed.get(position, 0)
            if corners and (confidence := self._certainty.of(corners)) >= self._certainty.at:
                return Match(int(self._rows.array[position]), confidence)
        return None
