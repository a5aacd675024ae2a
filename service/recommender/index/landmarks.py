"""Landmarks of pictures: corners, each with a binary description (ORB; Rublee et al., 2011) and a tint."""

from dataclasses import dataclass

import cv2
import numpy as np

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
