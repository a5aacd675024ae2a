"""The deployable: one BentoML service that chains encoder, index and ranker in one process."""

import logging
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")
# requests run side by side, one a core: a product of theirs that takes every core makes all others wait
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import bentoml
from starlette.responses import Response

from service import images
from service.batcher import MicroBatcher
from service.encoder import Chosen, available_cpus, candidates, choose
from service.errors import BadQuery, Busy
from service.metrics import Metrics
from service.pipeline import Recommender
from service.posts import PostLayer, Respond
from service.problems import ProblemLayer, problem_of
from service.queries import Query, SimilarQuery
from service.ranker import DEFAULT_USER_KEY
from service.release import Release
from service.routes import create_app
from service.settings import Settings
from service.wire import Body, EmbedBody, EmbeddingOut, RecommendationOut, RecommendBody, SimilarBody, to_json

Gone = Callable[[], Awaitable[Any]] | None
Work = Callable[[Sequence[Any]], list[tuple[str, bytes]]]  # queries -> the tier and the body of each answer

logger = logging.getLogger("vitrine")
logger.setLevel(logging.INFO)
settings = Settings()
metrics = Metrics()


@dataclass(slots=True)
class Running:
    """What the routes answer from, once the service has started."""

    recommender: Recommender
    batcher: MicroBatcher
    chosen: Chosen | None  # None for a catalogue without pictures


started: list[Running] = []


def running() -> Running:
    """The running service."""
    assert started, "the service has not been started"
    return started[0]


def start(settings: Settings, metrics: Metrics) -> Running:
    """Open the release, choose its encoder, and prove both on the golden cases.

    Raises ReleaseError, EncoderUnavailable."""
    began = time.perf_counter()
    release = Release.open(settings.release)
    cpus = settings.threads or available_cpus()
    chosen = _choose_encoder(release, settings, cpus) if release.encoders else None
    recommender = Recommender(
        release, encoder=chosen.encoder if chosen else None, precision=chosen.candidate.precision if chosen else "fp32",
        user_key=settings.user_key, max_pixels=settings.max_pixels, observe=metrics.observe_stage,
    )  # fmt: skip
    if release.ranker is not None and settings.user_key == DEFAULT_USER_KEY:
        logger.warning("user ids are hashed with the public default key; set VITRINE_USER_KEY in production")
    recommender.prove()
    batcher = MicroBatcher(
        # one more than there are cores: while a lane waits for the interpreter's lock, another uses its core
        lanes=cpus + 1,
        largest_batch=chosen.encoder.largest_batch if chosen else 1,
        bound=settings.max_waiting,
        observe=metrics.observe_batch,
    )
    metrics.release.labels(release.number).set(1)
    metrics.waiting.set_function(lambda: batcher.waiting)
    logger.info(
        "release %s: %d items, ready in %.2f s", release.number, len(release.items), time.perf_counter() - began
    )
    return Running(recommender, batcher, chosen)


def _choose_encoder(release: Release, settings: Settings, cpus: int) -> Chosen:
    golden = [release.path / "golden" / case.picture for case in release.golden.cases if case.picture]
    found = candidates(release.encoders, engine=settings.encoder, precision=settings.precision)
    pixels = images.decode_all(path.read_bytes() for path in golden)
    chosen = choose(found, pixels, release.golden.vectors, threads=cpus, lanes=cpus)
    metrics.encoder.labels(chosen.candidate.engine, chosen.candidate.precision).set(1)
    logger.info("encoder: %s, the fastest of %s", chosen.candidate, dict(chosen.tried))
    return chosen


@bentoml.service(
    name="vitrine",
    workers=1,
    # the batcher has the deadline, and the bound; BentoML keeps a timer for each request this long
    traffic={"timeout": settings.deadline + 5},
    tracing={"excluded_urls": ".*"},  # BentoML records spans that nobody reads, a third of its time
    logging={"access": {"enabled": False}},
    metrics={"enabled": False},  # BentoML labels its metrics with raw URLs; ours are at /metrics
)
class Vitrine:
    """Visual recommendation: a photo, a shopper, or both -> items of the catalogue, ranked, with reasons."""

    def __init__(self) -> None:
        started[:] = [start(settings, metrics)]

    async def __is_ready__(self) -> bool:
        return bool(started)

    @bentoml.on_shutdown
    def stop(self) -> None:
        """Finish what is under way."""
        running().batcher.close()

    @bentoml.api(route="/recommend", input_spec=RecommendBody, output_spec=RecommendationOut)
    async def recommend(self, asked: Query | BadQuery, gone: Gone = None, **documented: Any) -> Response:
        """Items for a shopper, a photo, or both; each with the terms of its score and the reasons."""
        return await POSTS["/recommend"][1](asked, gone)

    @bentoml.api(route="/similar", input_spec=SimilarBody, output_spec=RecommendationOut)
    async def similar(self, asked: SimilarQuery | BadQuery, gone: Gone = None, **documented: Any) -> Response:
        """Items that look like a photo, or like an item."""
        return await POSTS["/similar"][1](asked, gone)

    @bentoml.api(route="/embed", input_spec=EmbedBody, output_spec=EmbeddingOut)
    async def embed(self, asked: Query | BadQuery, gone: Gone = None, **documented: Any) -> Response:
        """The unit vector of a photo."""
        return await POSTS["/embed"][1](asked, gone)


async def _respond(route: str, work: Work, asked: Any, gone: Gone) -> Response:
    """Do the work off the event loop; count it; turn what is wrong with the query, or too much, into a problem."""
    began = time.perf_counter()
    tier = ""
    try:
        if isinstance(asked, BadQuery):
            raise asked
        tier, body = await running().batcher.submit(work, asked, seconds=settings.deadline, gone=gone)
        response = Response(body, media_type="application/json")
    except (BadQuery, Busy) as error:
        response = problem_of(error)
    metrics.observe_answer(route, response.status_code, tier, time.perf_counter() - began)
    return response


def _recommend(queries: Sequence[Query]) -> list[tuple[str, bytes]]:
    return [(answer.tier, to_json(answer)) for answer in running().recommender.recommend(queries)]


def _similar(queries: Sequence[SimilarQuery]) -> list[tuple[str, bytes]]:
    return [(answer.tier, to_json(answer)) for answer in running().recommender.similar(queries)]


def _embed(queries: Sequence[Query]) -> list[tuple[str, bytes]]:
    recommender = running().recommender
    encoder = recommender.release.manifest.encoder
    pictures = [query.image or b"" for query in queries]
    vectors = recommender.embed(pictures, boxes=[query.box for query in queries])
    assert encoder is not None, "without an encoder, embed raises"
    number, fingerprint = recommender.release.number, encoder["fingerprint"]
    return [
        ("", EmbeddingOut(release=number, fingerprint=fingerprint, embedding=vector).model_dump_json().encode())
        for vector in vectors.tolist()
    ]


POSTS: dict[str, tuple[type[Body[Any]], Respond]] = {
    "/recommend": (RecommendBody, partial(_respond, "/recommend", _recommend)),
    "/similar": (SimilarBody, partial(_respond, "/similar", _similar)),
    "/embed": (EmbedBody, partial(_respond, "/embed", _embed)),
}

_service: Any = Vitrine  # the decorator made a bentoml.Service of the class
_service.add_asgi_middleware(ProblemLayer, max_body_bytes=settings.max_body_bytes)
_service.add_asgi_middleware(PostLayer, posts=POSTS)
_service.mount_asgi_app(
    create_app(lambda: running().recommender, metrics, lambda: _service.openapi_spec.asdict()), path="/"
)
