"""What a release holds of pictures and users that a later training need not make again."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from service.recommender.release import LANDMARKS, PICTURE_ROWS, Release
from training.data.pictures import COLOURS

FOLDER = "retraining"  # of a release
DIGESTS, VECTORS = "picture_digests.npy", "picture_vectors.npy"
VIEWS, VIEW_ROWS, STRANGERS = "views.npy", "view_rows.npy", "strangers.npy"


@dataclass(frozen=True, slots=True)
class Pictures:
    """Every picture of a release. digests: sha256 -> position, the first of equal ones; vectors: (m, dim) float32;
    landmarks: (m, FEATURES, PACKED) uint8; first: sha256 of an item's first picture -> the item's row;
    colours: sha256 of the same -> as `duplicates.coarse`."""

    digests: Mapping[bytes, int]
    vectors: np.ndarray
    landmarks: np.ndarray
    first: Mapping[bytes, int]
    colours: Mapping[bytes, np.ndarray]


@dataclass(frozen=True, slots=True)
class Calibration:
    """By what the signs of photos were learned. rows, views: the item of each photo, and its vector, (v, dim);
    strangers: (s, dim); new: pictures that came since; match: what the manifest says of it."""

    rows: np.ndarray
    views: np.ndarray
    strangers: np.ndarray
    new: int
    match: dict[str, float] | None


@dataclass(frozen=True, slots=True)
class Previous:
    """A release that a training goes on from. pictures: none where it does not say which it holds; calibration: None
    where it does not hold it."""

    release: Release
    pictures: Pictures
    calibration: Calibration | None

    @classmethod
    def open(cls, path: Path, *, trusted: Sequence[Ed25519PublicKey] = ()) -> "Previous":
        """Raises ReleaseError."""
        release = Release.open(path, trusted=trusted)
        if not (path / FOLDER / DIGESTS).exists():
            return cls(release, Pictures({}, np.empty((0, 0)), np.empty((0, 0)), {}, {}), None)
        return cls(release, _pictures(release), _calibration(release))

    @property
    def number(self) -> int:
        """Of the release."""
        return self.release.manifest.release

    @property
    def chosen_by(self) -> int:
        """The release whose search found the ranker's regularisation."""
        kept = self.release.manifest.training.get("kept") or {}
        return int(kept.get("chosen_by", self.number))

    @property
    def protocol(self) -> str:
        """By which its log was split."""
        return str(self.release.manifest.data.get("protocol", "temporal"))

    def is_before(self, cutoff: int | None) -> bool:
        """Whether nothing that is held out from `cutoff` on, in seconds, taught it."""
        own: int | None = self.release.manifest.data["cutoff"]
        return own is None or (cutoff is not None and own <= cutoff)

    @property
    def encoder_parameters(self) -> dict[str, Any]:
        """How its encoder was trained."""
        return dict(self.release.manifest.training["encoder"])

    def thumbnail(self, digest: bytes) -> bytes | None:
        """Of the first picture of an item, whichever that was."""
        row = self.pictures.first.get(digest)
        return None if row is None else self.release.thumbnails.jpeg(row)

    def rows_of(self, ids: Sequence[str]) -> np.ndarray:
        """(n,) the row of each item, -1 where the release does not hold it."""
        found = (self.release.items.find(item_id) for item_id in ids)
        return np.array([-1 if row is None else row for row in found], np.int64)

    def factors(self, ids: Sequence[str], keys: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Where users and items stood: (users, factors), (items, factors) float32, NaN where they are new. Of a release
        with interactions."""
        ranker = self.release.ranker
        assert ranker is not None
        users = pq.ParquetFile(self.release.path / "ranker" / "users.parquet").read()["user"].to_pylist()
        place = {key: row for row, key in enumerate(users)}
        places = np.array([place.get(key, -1) for key in keys], np.int64)
        return _taken(ranker.user_factors, places), _taken(ranker.item_factors, self.rows_of(ids))


def _taken(table: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Rows of a table, NaN for -1."""
    found = np.full((len(rows), table.shape[1]), np.nan, np.float32)
    found[rows >= 0] = table[rows[rows >= 0]]
    return found


def _pictures(release: Release) -> Pictures:
    folder = release.path / FOLDER
    raw = np.load(folder / DIGESTS, allow_pickle=False)
    digests = [row.tobytes() for row in raw]
    rows = np.flatnonzero(release.items.sealed_pictured)
    vectors = np.load(release.path / "vectors.npy", mmap_mode="r", allow_pickle=False)
    if (folder / VECTORS).exists():
        rows = np.load(release.path / PICTURE_ROWS, allow_pickle=False)
        vectors = np.load(folder / VECTORS, mmap_mode="r", allow_pickle=False)
    else:
        vectors = vectors[rows]
    colours = np.load(folder / COLOURS, allow_pickle=False)
    items, places = np.unique(rows, return_index=True)
    first = {digests[place]: int(row) for row, place in reversed(list(zip(items, places, strict=True)))}
    return Pictures(
        {digest: at for at, digest in reversed(list(enumerate(digests)))},
        vectors,
        np.load(release.path / LANDMARKS, mmap_mode="r", allow_pickle=False),
        first,
        {digests[place]: colour for place, colour in zip(places, colours, strict=True)},
    )


def _calibration(release: Release) -> Calibration:
    names = (VIEW_ROWS, VIEWS, STRANGERS)
    rows, views, strangers = (np.load(release.path / FOLDER / name, allow_pickle=False) for name in names)
    facts = release.manifest.index or {}
    return Calibration(rows, views, strangers, new=int(facts["new_since_calibration"]), match=facts["match"])
