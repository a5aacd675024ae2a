"""A release opened for serving: its encoder chosen, its answers proven, its work ready for the batcher."""

import logging
import threading
import time
import weakref
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from service import context
from service.encoder.selection import TRITON, Candidate, Encoder, available_cpus, candidates, choose
from service.encoder.triton_client import LANES, Address, Fallback, Triton
from service.encoder.triton_process import TritonServer
from service.errors import EncoderUnavailable, VitrineError
from service.http.schemas import EmbeddingOut, to_json
from service.observability.metrics import Metrics
from service.open_inference.models import models
from service.open_inference.server import Inference
from service.recommender.factors import DEFAULT_USER_KEY
from service.recommender.pipeline import Recommender
from service.recommender.query import Query, SimilarQuery
from service.recommender.recommendation import Recommendation
from service.recommender.release import Release
from service.serving import model_repository
from service.serving.batcher import MicroBatcher
from service.settings import Settings
from service.signing import read_trusted

FIRST_LOOK = 2.0  # seconds that a start waits for Triton where it need not be there

PLAIN = "recommend"  # answers as plain values
Work = Callable[[Sequence[Any]], Sequence[Any]]  # queries -> answers: of a route, the tier and the body of each
Route = Callable[..., Awaitable[Any]]  # (production, user id, ask) -> the answer of the release that is to give it

logger = logging.getLogger("vitrine")


@dataclass(frozen=True, slots=True)
class Serving:
    """What requests are answered from. work: by route, for the native protocol, and PLAIN; lanes: requests at once.

    Work and models hold on to the recommender; when the last request that does has ended, its encoder is closed."""

    recommender: Recommender
    encoder: str  # engine and precision
    lanes: int
    work: Mapping[str, Work]

    @property
    def number(self) -> str:
        """Of its release."""
        return self.recommender.release.number

    @property
    def largest_batch(self) -> int:
        """Requests that are worth answering together."""
        return self.recommender.encoder.largest_batch if self.recommender.encoder is not None else 1

    def inference(
        self, batcher: MicroBatcher, answer: Route, observe: Callable[[str, Exception | None], None]
    ) -> Inference:
        """The models of the inference protocol over it. answer: chooses the release that answers a shopper; observe:
        told of every answer, of a model and an error."""

        async def recommend(query: Query, seconds: float, waited: Callable[[float], None]) -> Recommendation:
            call = context.current()

            async def ask(serving: Serving) -> Recommendation:
                if call is not None:
                    call.release, call.user_id = serving.number, query.user_id
                return await batcher.submit(serving.work[PLAIN], query, seconds=seconds, waited=waited)

            return await answer(self, query.user_id, ask)

        return Inference(models(self.recommender, batcher, recommend), self.number, observe)


@dataclass(frozen=True, slots=True)
class _Opened:
    """The encoder as it will serve; `end` is called when it is not needed any more."""

    encoder: Encoder | None
    engine: str
    precision: str
    lanes: int
    end: Callable[[], None] | None = None


def open_serving(path: Path, settings: Settings, metrics: Metrics) -> Serving:
    """Open the release, choose its encoder, and prove both on the golden cases.

    Raises ReleaseError, EncoderUnavailable, EncoderAway."""
    began = time.perf_counter()
    release = Release.open(path, trusted=read_trusted(settings.trusted_keys))
    cpus = settings.threads or available_cpus()
    # one lane more than there are cores: while one waits for the interpreter's lock, another uses its core
    opened = _Opened(None, "", "fp32", cpus + 1)
    if release.encoders:
        opened = (_in_triton if settings.encoder == TRITON else _in_process)(release, settings, cpus, metrics)
    try:
        recommender = Recommender(
            release, encoder=opened.encoder, precision=opened.precision, user_key=settings.user_key,
            max_pixels=settings.max_pixels, observe=partial(_observe_stage, metrics),
        )  # fmt: skip
        if release.ranker is not None and settings.user_key == DEFAULT_USER_KEY:
            logger.warning("user ids are hashed with the public default key; set VITRINE_USER_KEY in production")
        recommender.prove()
    except BaseException:
        if opened.end is not None:
            opened.end()
        raise
    if opened.end is not None:
        weakref.finalize(recommender, opened.end)
    logger.info(
        "release %s: %d items, ready in %.2f s", release.number, len(release.items), time.perf_counter() - began
    )
    return Serving(recommender, f"{opened.engine} {opened.precision}", opened.lanes, _work(recommender))


def _observe_stage(metrics: Metrics, stage: str, seconds: float) -> None:
    metrics.observe_stage(stage, seconds)
    context.went_through(stage, seconds)


def start_triton(settings: Settings, metrics: Metrics) -> TritonServer | None:
    """The server inside this container, where one is asked for."""
    if settings.encoder != TRITON or settings.triton_server is None:
        return None
    if settings.model_repository is None:
        raise EncoderUnavailable("VITRINE_TRITON_SERVER needs VITRINE_MODEL_REPOSITORY, the folder that it serves from")
    settings.model_repository.mkdir(parents=True, exist_ok=True)
    return TritonServer(
        settings.triton_server, settings.model_repository, url=settings.triton_url, observe=metrics.triton_starts.inc
    )


def _in_process(release: Release, settings: Settings, cpus: int, metrics: Metrics) -> _Opened:
    """The engine and precision that are the fastest here."""
    found = candidates(
        release.encoders, engine=settings.encoder, precision=settings.precision, engine_cache=settings.engine_cache
    )
    chosen = choose(found, release.golden_pixels(), release.golden.vectors, threads=cpus, lanes=cpus)
    logger.info("encoder: %s, the fastest of %s", chosen.candidate, dict(chosen.tried))
    return _Opened(chosen.encoder, chosen.candidate.engine, chosen.candidate.precision, cpus + 1)


def _in_triton(release: Release, settings: Settings, cpus: int, metrics: Metrics) -> _Opened:
    """A Triton server; with the release's own encoder behind it if allowed."""
    address = Address(settings.triton_url, settings.triton_model, release.number, settings.triton_timeout)
    if settings.model_repository is not None:
        # beside the start: a folder on a network may be slow, or away
        threading.Thread(target=_bring, args=(release, settings.model_repository), name="bring", daemon=True).start()
    golden, vectors = release.golden_pixels(), release.golden.vectors["fp32"]
    triton = Triton(address, golden, vectors, observe=metrics.triton_of(release.number).set)

    def end() -> None:
        triton.close()
        metrics.forget_triton_of(release.number)

    if not settings.triton_fallback:
        if not triton.wait(settings.triton_wait):
            end()
            raise EncoderUnavailable(
                f"Triton at {settings.triton_url} did not serve {settings.triton_model} version {release.number} "
                f"within {settings.triton_wait:g} s ({triton.away}); install the release with vitrine train --only "
                "export --model-repository, or set VITRINE_TRITON_FALLBACK=true"
            )
        return _Opened(triton, TRITON, "fp32", LANES, end)
    own = Candidate("onnxruntime", "fp32", release.encoders["fp32"], settings.engine_cache).open(
        threads=cpus, lanes=cpus
    )
    triton.wait(min(settings.triton_wait, FIRST_LOOK))
    both = Fallback(triton, own, observe=metrics.triton_fallbacks.inc)
    return _Opened(both, TRITON, "fp32", LANES, end)


def _bring(release: Release, repository: Path) -> None:
    """Give Triton this release's encoder. Without it, or without a folder that can be written, the service goes on."""
    try:
        logger.info("Triton: %s", model_repository.install(release, repository))
    except (OSError, VitrineError) as error:
        logger.warning("Triton is not given release %s: %s", release.number, error)


def _work(recommender: Recommender) -> dict[str, Work]:
    """One object a route: the batcher puts together what has the same work."""

    def recommend(queries: Sequence[Query]) -> list[tuple[str, bytes]]:
        return [(answer.tier, to_json(answer)) for answer in recommender.recommend(queries)]

    def similar(queries: Sequence[SimilarQuery]) -> list[tuple[str, bytes]]:
        return [(answer.tier, to_json(answer)) for answer in recommender.similar(queries)]

    def embed(queries: Sequence[Query]) -> list[tuple[str, bytes]]:
        pictures = [query.image or b"" for query in queries]
        vectors = recommender.embed(pictures, boxes=[query.box for query in queries])
        encoder = recommender.release.manifest.encoder
        assert encoder is not None, "without an encoder, embed raises"
        said = {"release": recommender.release.number, "fingerprint": encoder["fingerprint"]}
        said["degraded"] = recommender.degraded()
        answers = [EmbeddingOut(**said, embedding=vector) for vector in vectors.tolist()]
        return [("", answer.model_dump_json().encode()) for answer in answers]

    return {"/recommend": recommend, "/similar": similar, "/embed": embed, PLAIN: recommender.recommend}
