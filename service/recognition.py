"""Whether a photo shows an item of the catalogue itself: small features that lie in both pictures alike.

The encoder says what looks alike, and two shirts of one kind are as near to each other as two photos of one shirt.
Landmarks tell them apart: corners with a binary description each (ORB; Rublee et al., 2011). Where many corners of a
photo have their like in a picture, all moved, turned and scaled in one and the same way, both show the same thing.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from service.index import Index

CANDIDATES = 5  # pictures that a photo is held against, those nearest to it
FEATURES = 200  # of a picture at most, the strongest corners
DESCRIPTION = 32  # bytes of each
DISTINCT = 0.8  # how much nearer the best likeness of a corner must be than the second (Lowe, 2004)
FEWEST = 5  # corners with a like, below which nothing is said
OFF = 4.0  # pixels that a corner may lie from where the others say
SCALES = (0.3, 1.6)  # of a photo beside the picture
MOST_TURNED = 0.5  # radians
_NOTHING = np.empty((0, 2), np.float32), np.empty((0, DESCRIPTION), np.uint8)


@dataclass(frozen=True, slots=True)
class Landmarks:
    """Of one picture. points: (n, 2) float32, x and y in pixels; descriptions: (n, 32) uint8."""

    points: np.ndarray
    descriptions: np.ndarray

    def packed(self) -> np.ndarray:
        """As a release keeps them: (FEATURES, 2 + 32) uint8, zeros where there are fewer."""
        rows = np.zeros((FEATURES, 2 + DESCRIPTION), np.uint8)
        rows[: len(self.points), :2] = np.rint(self.points)
        rows[: len(self.points), 2:] = self.descriptions
        return rows

    @classmethod
    def unpacked(cls, rows: np.ndarray) -> "Landmarks":
        """What `packed` gave. No corner lies at the very edge, so none is at 0."""
        there = rows[rows[:, 0] > 0]
        return cls(there[:, :2].astype(np.float32), np.ascontiguousarray(there[:, 2:]))


def find(pixels: np.ndarray) -> Landmarks:
    """The landmarks of a picture as the encoder sees it: (height, width, 3) uint8, sides of at most 256 pixels."""
    finder = cv2.ORB.create(FEATURES, scaleFactor=1.25, nlevels=5, edgeThreshold=12, patchSize=25, fastThreshold=7)
    points, descriptions = finder.detectAndCompute(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), None)
    if descriptions is None:
        return Landmarks(*_NOTHING)
    # on one scale it may find one more than was asked for
    return Landmarks(np.asarray(cv2.KeyPoint.convert(points))[:FEATURES], np.asarray(descriptions)[:FEATURES])


def mirrored(pixels: np.ndarray) -> Landmarks:
    """Those of the mirror image, which is what some phones take; a corner's description is another one there."""
    return find(np.ascontiguousarray(pixels[:, ::-1]))


def agreement(photo: Landmarks, picture: Landmarks) -> int:
    """How many corners of a photo lie in a picture as one movement, turn and scale of all of them says."""
    if min(len(photo.points), len(picture.points)) < FEWEST:
        return 0
    distances, likes = cv2.batchDistance(
        photo.descriptions, picture.descriptions, cv2.CV_32S, normType=cv2.NORM_HAMMING, K=2
    )
    sure = np.flatnonzero(distances[:, 0] < DISTINCT * distances[:, 1])
    if len(sure) < FEWEST:
        return 0
    # its draws come from a seed of its own, so the same pictures agree alike each time
    moved, agree = cv2.estimateAffinePartial2D(
        photo.points[sure], picture.points[likes[sure, 0]], ransacReprojThreshold=OFF, maxIters=100, refineIters=0
    )
    if moved is None:
        return 0
    scale, turned = float(np.hypot(moved[0, 0], moved[1, 0])), float(np.arctan2(moved[1, 0], moved[0, 0]))
    return int(agree.sum()) if SCALES[0] < scale < SCALES[1] and abs(turned) < MOST_TURNED else 0


class Gallery:
    """The landmarks of every picture of a release, memory-mapped, in the order of its index."""

    def __init__(self, packed: np.ndarray) -> None:
        """packed: (pictures, FEATURES, 34) uint8."""
        self._packed = packed

    @classmethod
    def open(cls, path: Path) -> "Gallery":
        """Open landmarks.npy of a release. Raises ValueError where it is none."""
        packed = np.load(path, mmap_mode="r", allow_pickle=False)
        if packed.dtype != np.uint8 or packed.shape[1:] != (FEATURES, 2 + DESCRIPTION):
            raise ValueError(f"{path.name} must be (pictures, {FEATURES}, {2 + DESCRIPTION}) uint8; it is "
                             f"{packed.shape} {packed.dtype}")  # fmt: skip
        return cls(packed)

    def __len__(self) -> int:
        return len(self._packed)

    def picture(self, position: int) -> Landmarks:
        """Of the picture at this position of the index."""
        return Landmarks.unpacked(self._packed[position])


@dataclass(frozen=True, slots=True)
class Match:
    """The item that a photo shows. confidence: 0 to 1, as often right among photos of items and of others alike."""

    row: int
    confidence: float


@dataclass(frozen=True, slots=True)
class Certainty:
    """How sure corners that agree and a cosine make: a logistic function, fitted by training/recognition.py.

    at: the confidence from which it is said; least_cosine: below it no picture is looked at."""

    agreement: float  # weight of log(1 + corners)
    cosine: float
    bias: float
    at: float
    least_cosine: float

    def of(self, agreement: int, cosine: float) -> float:
        """0 to 1."""
        sum = self.bias + self.agreement * math.log1p(agreement) + self.cosine * cosine
        return 1 / (1 + math.exp(-max(min(sum, 500.0), -500.0)))


class Recogniser:
    """Finds the item that a photo shows, among those whose pictures are nearest to it."""

    def __init__(self, index: Index, gallery: Gallery, certainty: Certainty) -> None:
        self._index, self._gallery, self._certainty = index, gallery, certainty

    @classmethod
    def open(cls, path: Path, index: Index, facts: Mapping[str, Any]) -> "Recogniser":
        """Open landmarks.npy of a release. facts: what its manifest says of `match`. Raises ValueError."""
        gallery = Gallery.open(path)
        if len(gallery) != len(index):
            raise ValueError(f"{path.name} has {len(gallery)} pictures, the index {len(index)}")
        return cls(index, gallery, Certainty(**{name: float(facts[name]) for name in Certainty.__slots__}))

    def match(self, pixels: np.ndarray, vector: np.ndarray, rows: Sequence[int]) -> Match | None:
        """The item that a photo shows, or None. pixels: (side, side, 3) uint8, as the encoder saw it; vector: (dim,);
        rows: the items nearest to it, nearest first."""
        positions = np.array([at for row in rows[:CANDIDATES] for at in self._index.pictures(int(row))], np.int64)
        cosines = self._index.at(positions) @ vector if len(positions) else np.empty(0, np.float32)
        order = np.argsort(-cosines, kind="stable")[:CANDIDATES]
        near = [(int(positions[at]), float(cosines[at])) for at in order if cosines[at] >= self._certainty.least_cosine]
        if not near:
            return None
        for look in (find, mirrored):
            best = self._best(look(pixels), near)
            if best.confidence >= self._certainty.at:
                return best
        return None

    def _best(self, landmarks: Landmarks, near: Sequence[tuple[int, float]]) -> Match:
        sure = [
            (self._certainty.of(agreement(landmarks, self._gallery.picture(position)), cosine), position)
            for position, cosine in near
        ]
        confidence, position = max(sure, key=lambda each: each[0])
        return Match(int(self._index.rows[position]), confidence)
