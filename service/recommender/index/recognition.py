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
from pathlib import Path
from typing import Any

import cv2
import faiss
import numpy as np

from service.recommender.changes.growing import Growing
from service.recommender.index.vector_index import one_thread

CANDIDATES = 3  # pictures that a photo is held against, those with the most votes
VOTING = 64  # landmarks of each picture that can be voted for
VOTERS = 100  # landmarks of a photo that vote
BALLOTS = 2  # votes of each, for those described most alike
LOOKED_AT = 4 * BALLOTS  # ... once some pictures are not there any more, which may be among those most alike
FEWEST_VOTES = 1.8  # which 98 of 100 photos of an item give it, and 4 of 10 of something else give any
FAR = 64  # bits by which descriptions differ, from which they are not alike
EXACT_BELOW = 20_000  # descriptions that are all looked at
PROBES = 4  # of the lists into which more are sorted
PER_LIST = 60  # descriptions by which the middle of each list is found
FEATURES = 200  # of a picture at most, the strongest corners
DESCRIPTION = 32  # bytes of each
PACKED = 2 + 2 + DESCRIPTION  # bytes of a landmark in a release
AROUND = 7  # pixels whose mean is the tint of a corner
DARK = 30  # levels that each channel is credited with, since the tint of what is nearly black is noise
TINT = 0.1  # share of a colour channel by which the tints of the same thing may differ, in other light
DISTINCT = 0.8  # how much nearer the best likeness of a corner must be than the second (Lowe, 2004)
FEWEST = 5  # corners with a like, below which nothing is said
OFF = 4.0  # pixels that a corner may lie from where the others say
SCALES = (0.3, 1.6)  # of a photo beside the picture
MOST_TURNED = 0.5  # radians
_NOTHING = np.empty((0, 2), np.float32), np.empty((0, 2), np.float32), np.empty((0, DESCRIPTION), np.uint8)


@dataclass(frozen=True, slots=True)
class Landmarks:
    """Of one picture. points: (n, 2) float32, x and y in pixels; tints: (n, 2) float32, the shares of red and of blue,
    0 to 1; descriptions: (n, 32) uint8."""

    points: np.ndarray
    tints: np.ndarray
    descriptions: np.ndarray

    def packed(self) -> np.ndarray:
        """As a release keeps them: (FEATURES, PACKED) uint8, zeros where there are fewer."""
        rows = np.zeros((FEATURES, PACKED), np.uint8)
        rows[: len(self.points), :2] = np.rint(self.points)
        rows[: len(self.points), 2:4] = np.rint(255 * self.tints)
        rows[: len(self.points), 4:] = self.descriptions
        return rows

    @classmethod
    def unpacked(cls, rows: np.ndarray) -> "Landmarks":
        """What `packed` gave. No corner lies at the very edge, so none is at 0. rows: (FEATURES, PACKED) uint8."""
        there = rows[rows[:, 0] > 0]
        tints = there[:, 2:4].astype(np.float32) / 255
        return cls(there[:, :2].astype(np.float32), tints, np.ascontiguousarray(there[:, 4:]))


def find(pixels: np.ndarray) -> Landmarks:
    """The landmarks of a picture as the encoder sees it: (height, width, 3) uint8, sides of at most 256 pixels."""
    finder = cv2.ORB.create(FEATURES, scaleFactor=1.25, nlevels=5, edgeThreshold=12, patchSize=25, fastThreshold=7)
    points, descriptions = finder.detectAndCompute(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), None)
    if descriptions is None:
        return Landmarks(*_NOTHING)
    # on one scale it may find one more than was asked for
    places = np.asarray(cv2.KeyPoint.convert(points), np.float32)[:FEATURES]
    x, y = np.rint(places).astype(int).T
    colours = cv2.blur(pixels, (AROUND, AROUND))[y, x].astype(np.float32) + DARK
    tints = colours[:, ::2] / colours.sum(axis=1, keepdims=True)
    return Landmarks(places, tints, np.asarray(descriptions)[:FEATURES])


def mirrored(pixels: np.ndarray) -> Landmarks:
    """Those of the mirror image, which is what some phones take; a corner's description is another one there."""
    return find(np.ascontiguousarray(pixels[:, ::-1]))


def agreement(photo: Landmarks, picture: Landmarks) -> int:
    """How many corners of a photo lie in a picture as one movement, turn and scale of all of them says, and are of the
    same tint: the same model in another colour has the same corners."""
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
    tinted = np.abs(photo.tints[sure] - picture.tints[likes[sure, 0]]).max(axis=1) <= TINT
    if not SCALES[0] < scale < SCALES[1] or abs(turned) >= MOST_TURNED:
        return 0
    return int((agree.ravel().astype(bool) & tinted).sum())


class Gallery:
    """The landmarks of every picture of a release, memory-mapped, in the order of its index."""

    def __init__(self, packed: np.ndarray, descriptions: faiss.IndexBinary) -> None:
        """packed: (pictures, FEATURES, PACKED) uint8; descriptions: of `sorted_descriptions`."""
        self._packed = packed
        self._descriptions = descriptions
        self._new = Growing(np.empty((0, FEATURES, PACKED), np.uint8))  # pictures that came since
        self._new_descriptions: faiss.IndexBinary | None = None
        self._there = Growing(np.ones(len(packed), bool))
        self._gone = 0  # pictures that are not there any more

    @classmethod
    def open(cls, packed: Path, descriptions: Path) -> "Gallery":
        """Open landmarks.npy and landmarks.faiss of a release. Raises ValueError where they are none."""
        marks = np.load(packed, mmap_mode="r", allow_pickle=False)
        if marks.dtype != np.uint8 or marks.shape[1:] != (FEATURES, PACKED):
            raise ValueError(f"{packed.name} must be (pictures, {FEATURES}, {PACKED}) uint8; it is "
                             f"{marks.shape} {marks.dtype}")  # fmt: skip
        return cls(marks, faiss.read_index_binary(str(descriptions)))

    def __len__(self) -> int:
        return len(self._packed) + len(self._new)

    def picture(self, position: int) -> Landmarks:
        """Of the picture at this position of the index."""
        return Landmarks.unpacked(self.packed(position))

    def packed(self, position: int) -> np.ndarray:
        """The same as it is kept: (FEATURES, PACKED) uint8."""
        sealed = len(self._packed)
        found: np.ndarray = self._packed[position] if position < sealed else self._new.array[position - sealed]
        return found

    def add(self, packed: np.ndarray) -> int:
        """One more picture, (FEATURES, PACKED) uint8; returns its position."""
        position = len(self)
        self._new.append(packed[None])
        self._there.append(np.ones(1, bool))
        if self._new_descriptions is None:
            self._new_descriptions = _empty_like(self._descriptions)
        voting = packed[:VOTING]
        descriptions = np.ascontiguousarray(voting[voting[:, 0] > 0][:, 4:])
        if len(descriptions):
            with one_thread():
                self._new_descriptions.add_with_ids(descriptions, np.full(len(descriptions), position))
        return position

    def show(self, position: int, there: bool) -> None:
        """Whether a picture may be found."""
        self._gone += int(self._there.array[position]) - int(there)
        self._there.array[position] = there

    def likely(self, photo: Landmarks, *, k: int = CANDIDATES) -> list[int]:
        """The positions of the pictures that most of a photo's landmarks vote for, most votes first."""
        if not len(photo.points):
            return []
        looked_at = LOOKED_AT if self._gone else BALLOTS
        indexes = (self._descriptions, self._new_descriptions)
        parts = [_most_alike(photo, each, looked_at) for each in indexes if each is not None]
        distances, positions = (np.concatenate(each, axis=1) for each in zip(*parts, strict=True))
        if self._gone:
            distances = np.where(self._there.array[positions], distances, 8 * DESCRIPTION)
        if distances.shape[1] > BALLOTS:  # of all parts, and of what is there, those described most alike
            order = np.argsort(distances, axis=1, kind="stable")[:, :BALLOTS]
            distances, positions = np.take_along_axis(distances, order, 1), np.take_along_axis(positions, order, 1)
        alike = (positions >= 0) & (distances < FAR)
        found, voted = np.unique(positions[alike], return_inverse=True)
        votes = np.bincount(voted, 1 - distances[alike] / FAR)
        order = np.argsort(-votes, kind="stable")[:k]
        best: list[int] = found[order[votes[order] >= FEWEST_VOTES]].tolist()
        return best


def _most_alike(photo: Landmarks, descriptions: faiss.IndexBinary, k: int) -> tuple[np.ndarray, np.ndarray]:
    """For each landmark that votes the distances and owners of those described most alike: (n, k) each."""
    with one_thread():  # a millisecond's work is not worth waking others
        distances, positions = descriptions.search(photo.descriptions[:VOTERS], k)
    return np.where(positions < 0, 8 * DESCRIPTION, distances), positions


def _empty_like(descriptions: faiss.IndexBinary) -> faiss.IndexBinary:
    """An index without descriptions that sorts them into the same lists, if there are any."""
    bits = 8 * DESCRIPTION
    sorting = faiss.downcast_IndexBinary(descriptions)
    if not isinstance(sorting, faiss.IndexBinaryIVF):
        return faiss.IndexBinaryIDMap2(_kept(faiss.IndexBinaryFlat(bits)))
    middles = faiss.downcast_IndexBinary(sorting.quantizer)
    codes = faiss.vector_to_array(middles.xb).reshape(-1, DESCRIPTION)
    quantizer = faiss.IndexBinaryFlat(bits)
    quantizer.add(codes)
    index = faiss.IndexBinaryIVF(_kept(quantizer), bits, sorting.nlist)
    index.nprobe, index.is_trained = sorting.nprobe, True
    return index


def sorted_descriptions(packed: np.ndarray) -> faiss.IndexBinary:
    """What is voted on: the strongest descriptions of each picture, by its position; where there are many, sorted into
    lists. packed: (pictures, FEATURES, PACKED) uint8."""
    voting = packed[:, :VOTING]
    there = voting[:, :, 0] > 0
    descriptions = np.ascontiguousarray(voting[there][:, 4:])
    owners = np.repeat(np.arange(len(packed)), there.sum(axis=1)).astype(np.int64)
    bits = 8 * DESCRIPTION
    if len(descriptions) < EXACT_BELOW:
        index = faiss.IndexBinaryIDMap2(_kept(faiss.IndexBinaryFlat(bits)))
    else:
        lists = 2 ** round(math.log2(len(descriptions)) / 2)
        index = faiss.IndexBinaryIVF(_kept(faiss.IndexBinaryFlat(bits)), bits, lists)
        index.nprobe = PROBES
        with one_thread():  # the middles of the lists depend on the order in which threads come
            index.train(descriptions[:: max(1, len(descriptions) // (PER_LIST * lists))])
    if len(descriptions):
        with one_thread():
            index.add_with_ids(descriptions, owners)
    return index


def _kept(inner: faiss.IndexBinary) -> faiss.IndexBinary:
    """For another index, which frees it."""
    inner.this.disown()
    return inner


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
            agreed = [(agreement(photo, self._gallery.picture(at)), at) for at in self._gallery.likely(photo)]
            # of the same number that with most votes
            corners, position = max(agreed, key=lambda each: each[0], default=(0, 0))
            if corners and (confidence := self._certainty.of(corners)) >= self._certainty.at:
                return Match(int(self._rows.array[position]), confidence)
        return None
