"""The pictures of items that came since: decoded and embedded once, by whoever needs them first."""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from service.errors import BadQuery
from service.live.operations import KeepSeen, Picture
from service.live.store import Seen, Store
from service.live.unit_of_work import ItemState
from service.recommender.index.landmarks import FEATURES, PACKED, find
from service.recommender.pipeline import Recommender

BATCH = 16  # pictures that are decoded and embedded together
MAX_PICTURES = 10  # of one item

logger = logging.getLogger("vitrine")


@dataclass(frozen=True, slots=True)
class LookedAt:
    """One picture. vector: (dim,) float32, unit length; landmarks: (FEATURES, PACKED) uint8, or None where the release
    recognises nothing."""

    vector: np.ndarray
    landmarks: np.ndarray | None


class PictureReader:
    """Looks at pictures for one release."""

    def __init__(self, recommender: Recommender, store: Store) -> None:
        """recommender: of a release with pictures."""
        self._recommender, self._store = recommender, store

    def look(self, states: Sequence[ItemState]) -> dict[str, LookedAt]:
        """The pictures of these items by digest, but those that cannot be read. Raises StoreAway, EncoderAway."""
        wanted = list(dict.fromkeys(digest for state in states for digest in state.pictures or ()))
        if not wanted:
            return {}
        known = self._store.seen(wanted, encoder=self._fingerprint, precision=self._recommender.precision)
        found = {digest: looked for digest, seen in known.items() if (looked := self._unpacked(seen)) is not None}
        missing = [digest for digest in wanted if digest not in found]
        for start in range(0, len(missing), BATCH):
            contents = {digest: self._store.picture(digest) for digest in missing[start : start + BATCH]}
            pictures = self._read({digest: content for digest, content in contents.items() if content is not None})
            self._store.write([KeepSeen(pictures)])
            found |= {each.digest: self._looked_at(each) for each in pictures}
        return found

    def read(self, sent: Sequence[Sequence[bytes]]) -> list[list[Picture]]:
        """The pictures of several items as somebody sends them, looked at: work for the batcher.

        Raises BadQuery where one cannot be read, EncoderAway."""
        for contents in sent:
            if len(contents) > MAX_PICTURES:
                raise BadQuery(f"an item has {MAX_PICTURES} pictures at most; got {len(contents)}", field="image")
        every = [content for contents in sent for content in contents]
        looked = iter(self._embedded([hashlib.sha256(content).hexdigest() for content in every], every))
        return [[next(looked) for _ in contents] for contents in sent]

    @property
    def _fingerprint(self) -> str:
        encoder = self._recommender.release.manifest.encoder
        assert encoder is not None, "a release with pictures has an encoder"
        return str(encoder["fingerprint"])

    def _read(self, contents: Mapping[str, bytes]) -> list[Picture]:
        try:
            return self._embedded(list(contents), list(contents.values()))
        except BadQuery as error:
            if len(contents) == 1:
                logger.warning("picture %s cannot be read: %s", next(iter(contents))[:12], error)
                return []
            return [each for digest, content in contents.items() for each in self._read({digest: content})]

    def _embedded(self, digests: Sequence[str], contents: Sequence[bytes]) -> list[Picture]:
        if not contents:
            return []
        photos = self._recommender.photos
        pixels = photos.decode(contents, [None] * len(contents))
        vectors = photos.encode(pixels)
        marks: list[bytes | None] = [None] * len(contents)
        if self._recommender.release.recogniser is not None:
            marks = [find(each).packed().tobytes() for each in pixels]
        key = (self._fingerprint, self._recommender.precision)
        return [
            Picture(digest, content, {key: vector.astype(np.float32).tobytes()}, mark)
            for digest, content, vector, mark in zip(digests, contents, vectors, marks, strict=True)
        ]

    def _unpacked(self, seen: Seen) -> LookedAt | None:
        """None where something is missing that this release needs."""
        if self._recommender.release.recogniser is None:
            return LookedAt(seen.vector, None)
        if seen.landmarks is None or len(seen.landmarks) != FEATURES * PACKED:
            return None
        return LookedAt(seen.vector, np.frombuffer(seen.landmarks, np.uint8).reshape(FEATURES, PACKED))

    def _looked_at(self, picture: Picture) -> LookedAt:
        looked = self._unpacked(
            Seen(np.frombuffer(next(iter(picture.vectors.values())), np.float32), picture.landmarks)
        )
        assert looked is not None, "it has just been looked at"
        return looked
