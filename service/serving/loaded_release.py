"""A release opened for serving: its encoder chosen, its answers proven, ready for the batcher."""

import logging
import time
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from service import context
from service.live.overlay import Overlay
from service.live.runtime import Live
from service.observability.metrics import Metrics
from service.recommender.golden import prove
from service.recommender.pipeline import Listener, PhotoListener, Recommender
from service.recommender.query import Query, SimilarQuery
from service.recommender.recommendation import Embedding, Recommendation
from service.recommender.release import Release
from service.recommender.user_keys import DEFAULT_USER_KEY
from service.serving.release_encoder import open_encoder
from service.settings import Settings
from service.signing import read_trusted

logger = logging.getLogger("vitrine")


@dataclass(frozen=True, slots=True)
class LoadedRelease:
    """What requests are answered from. encoder: its engine and precision, "" for a release without pictures; lanes:
    batches under way at once.

    Its methods take and return batches, in order: work for the batcher. When the last request that holds on to the
    recommender has ended, its encoder is closed."""

    recommender: Recommender
    encoder: str
    lanes: int
    listener: Listener | None = None  # called with what it was asked and answered
    overlay: Overlay | None = None  # what changed since, where there is a store
    photo_listener: PhotoListener | None = None  # the same, also with what was asked to look alike

    @property
    def number(self) -> str:
        """Of the release."""
        return self.recommender.release.number

    @property
    def largest_batch(self) -> int:
        """Requests that are worth answering together."""
        return self.recommender.encoder.largest_batch if self.recommender.encoder is not None else 1

    def recommend(self, queries: Sequence[Query]) -> list[Recommendation]:
        """Items for a user, a photo, or both."""
        return self.recommender.recommend(queries, listener=self._answered)

    def similar(self, queries: Sequence[SimilarQuery]) -> list[Recommendation]:
        """Items that look like a photo or an item."""
        return self.recommender.similar(queries, listener=self.photo_listener)

    def _answered(
        self, queries: Sequence[Query], vectors: Sequence[np.ndarray | None], answers: Sequence[Recommendation]
    ) -> None:
        for listener in (self.listener, self.photo_listener):
            if listener is not None:
                listener(queries, vectors, answers)

    def embed(self, queries: Sequence[Query]) -> list[Embedding]:
        """The vectors of the queries' photos."""
        pictures = [query.image or b"" for query in queries]
        vectors = self.recommender.embed(pictures, boxes=[query.box for query in queries])
        encoder = self.recommender.release.manifest.encoder
        assert encoder is not None, "without an encoder, embed raises"
        degraded = self.recommender.degraded()
        return [Embedding(self.number, encoder["fingerprint"], vector, degraded) for vector in vectors.tolist()]

    def encode(self, batches: Sequence[np.ndarray]) -> list[tuple[np.ndarray, list[str]]]:
        """Batches of pixels, (n, 224, 224, 3) uint8 each -> their vectors, (n, dim) float32, and what was degraded."""
        vectors = self.recommender.encode(batches[0] if len(batches) == 1 else np.concatenate(batches))
        parts = np.split(vectors, np.cumsum([len(batch) for batch in batches])[:-1])
        return [(part, self.recommender.degraded()) for part in parts]


def open_release(
    path: Path,
    listener: Listener | None,
    *,
    settings: Settings,
    metrics: Metrics,
    live: Live | None = None,
    photo_listener: PhotoListener | None = None,
) -> LoadedRelease:
    """Open the release, choose its encoder, prove both on the golden cases, and apply what changed since.

    listener, photo_listener: as in LoadedRelease. Raises ReleaseError, EncoderUnavailable, EncoderAway, StoreAway."""
    began = time.perf_counter()
    release = Release.open(path, trusted=read_trusted(settings.trusted_keys))
    opened = open_encoder(release, settings, metrics)
    try:
        recommender = Recommender(
            release,
            encoder=opened.encoder,
            precision=opened.precision,
            user_key=settings.user_key,
            max_pixels=settings.max_pixels,
            observe=partial(_observe_stage, metrics),
        )
        if release.ranker is not None and settings.user_key == DEFAULT_USER_KEY:
            logger.warning("user ids are hashed with the public default key; set VITRINE_USER_KEY in production")
        prove(recommender)
        overlay = None if live is None else live.attach(recommender)
    except BaseException:
        if opened.end is not None:
            opened.end()
        raise
    if opened.end is not None:
        weakref.finalize(recommender, opened.end)
    logger.info(
        "release %s: %d items, ready in %.2f s", release.number, len(release.items), time.perf_counter() - began
    )
    encoder = "" if opened.encoder is None else f"{opened.engine} {opened.precision}"
    return LoadedRelease(recommender, encoder, opened.lanes, listener, overlay, photo_listener)


def _observe_stage(metrics: Metrics, stage: str, seconds: float) -> None:
    metrics.observe_stage(stage, seconds)
    context.went_through(stage, seconds)
