"""The deployable: one BentoML service that chains encoder, index and ranker in one process, over HTTP and gRPC."""

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
import numpy as np
from starlette.responses import Response

from service import images
from service.batcher import MicroBatcher
from service.draining import Drain, DrainLayer
from service.encoder import TRITON, Candidate, Encoder, available_cpus, candidates, choose
from service.errors import BadQuery, Busy, EncoderUnavailable, VitrineError
from service.inference import Inference
from service.inference_grpc import GrpcFront
from service.inference_models import models
from service.inference_rest import REFUSAL, routes
from service.keys import KeyLayer
from service.metrics import Metrics
from service.pipeline import Recommender
from service.posts import PostLayer, Respond
from service.problems import ProblemLayer, problem_of
from service.queries import Query, SimilarQuery
from service.ranker import DEFAULT_USER_KEY
from service.release import Release
from service.routes import create_app
from service.settings import Settings
from service.triton import LANES, Address, Fallback, Triton
from service.triton_server import TritonServer
from service.wire import Body, EmbedBody, EmbeddingOut, RecommendationOut, RecommendBody, SimilarBody, to_json

Gone = Callable[[], Awaitable[Any]] | None
Work = Callable[[Sequence[Any]], list[tuple[str, bytes]]]  # queries -> the tier and the body of each answer

FIRST_LOOK = 2.0  # seconds that a start waits for Triton where it need not be there

logger = logging.getLogger("vitrine")
logger.setLevel(logging.INFO)
settings = Settings()
metrics = Metrics()
drain = Drain()


@dataclass(slots=True)
class Running:
    """What the routes answer from, once the service has started, and what must be ended with it."""

    recommender: Recommender
    batcher: MicroBatcher
    inference: Inference
    ending: list[Callable[[], None]]
    grpc: GrpcFront | None = None  # once it listens


@dataclass(frozen=True, slots=True)
class Opened:
    """The encoder as it will serve. lanes: calls that it may have at once."""

    encoder: Encoder
    precision: str
    lanes: int


started: list[Running] = []


def is_ready() -> bool:
    """Whether requests are welcome."""
    return bool(started) and not drain.begun


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
    ending: list[Callable[[], None]] = []
    opened = None
    if release.encoders:
        opened = (_in_triton if settings.encoder == TRITON else _in_process)(release, settings, cpus, ending)
    recommender = Recommender(
        release, encoder=opened.encoder if opened else None, precision=opened.precision if opened else "fp32",
        user_key=settings.user_key, max_pixels=settings.max_pixels, observe=metrics.observe_stage,
    )  # fmt: skip
    if release.ranker is not None and settings.user_key == DEFAULT_USER_KEY:
        logger.warning("user ids are hashed with the public default key; set VITRINE_USER_KEY in production")
    recommender.prove()
    batcher = MicroBatcher(
        # one more than there are cores: while a lane waits for the interpreter's lock, another uses its core
        lanes=opened.lanes if opened else cpus + 1,
        largest_batch=opened.encoder.largest_batch if opened else 1,
        bound=settings.max_waiting,
        observe=metrics.observe_batch,
    )
    metrics.release.labels(release.number).set(1)
    metrics.waiting.set_function(lambda: batcher.waiting)
    inference = Inference(models(recommender, batcher), release.number, metrics.observe_inference)
    logger.info(
        "release %s: %d items, ready in %.2f s", release.number, len(release.items), time.perf_counter() - began
    )
    return Running(recommender, batcher, inference, [batcher.close, *ending])


def _in_process(release: Release, settings: Settings, cpus: int, ending: list[Callable[[], None]]) -> Opened:
    """The engine and precision that are the fastest here."""
    found = candidates(release.encoders, engine=settings.encoder, precision=settings.precision)
    chosen = choose(found, _golden(release), release.golden.vectors, threads=cpus, lanes=cpus)
    metrics.encoder.labels(chosen.candidate.engine, chosen.candidate.precision).set(1)
    logger.info("encoder: %s, the fastest of %s", chosen.candidate, dict(chosen.tried))
    return Opened(chosen.encoder, chosen.candidate.precision, cpus + 1)


def _in_triton(release: Release, settings: Settings, cpus: int, ending: list[Callable[[], None]]) -> Opened:
    """A Triton server, beside the service or started by it; with the release's own encoder behind it if allowed."""
    if settings.triton_server is not None:
        server = TritonServer(
            settings.triton_server, settings.model_repository, url=settings.triton_url,
            observe=metrics.triton_starts.inc,
        )  # fmt: skip
        ending.append(server.close)
    address = Address(settings.triton_url, settings.triton_model, release.number, settings.triton_timeout)
    triton = Triton(address, _golden(release), release.golden.vectors["fp32"], observe=metrics.triton_there.set)
    ending.insert(0, triton.close)
    metrics.encoder.labels(TRITON, "fp32").set(1)
    if not settings.triton_fallback:
        if not triton.wait(settings.triton_wait):
            for end in ending:
                end()
            raise EncoderUnavailable(
                f"Triton at {settings.triton_url} did not serve {settings.triton_model} version {release.number} "
                f"within {settings.triton_wait:g} s ({triton.away}); install the release with vitrine train --only "
                "export --model-repository, or set VITRINE_TRITON_FALLBACK=true"
            )
        return Opened(triton, "fp32", LANES)
    own = Candidate("onnxruntime", "fp32", release.encoders["fp32"]).open(threads=cpus, lanes=cpus)
    triton.wait(min(settings.triton_wait, FIRST_LOOK))
    return Opened(Fallback(triton, own, observe=metrics.triton_fallbacks.inc), "fp32", LANES)


def _golden(release: Release) -> np.ndarray:
    """Pixels of the golden pictures."""
    golden = [release.path / "golden" / case.picture for case in release.golden.cases if case.picture]
    return images.decode_all(path.read_bytes() for path in golden)


def _tls(settings: Settings) -> dict[str, Any]:
    """What BentoML needs to serve HTTP over TLS."""
    if (settings.tls_certificate is None) != (settings.tls_key is None):
        raise VitrineError("VITRINE_TLS_CERTIFICATE and VITRINE_TLS_KEY go together: set both, or none")
    if settings.tls_certificate is None:
        return {"enabled": False}
    return {"enabled": True, "certfile": str(settings.tls_certificate), "keyfile": str(settings.tls_key)}


@bentoml.service(
    name="vitrine",
    workers=1,
    # the batcher has the deadline, and the bound; BentoML keeps a timer for each request this long
    traffic={"timeout": settings.deadline + 5},
    tracing={"excluded_urls": ".*"},  # BentoML records spans that nobody reads, a third of its time
    logging={"access": {"enabled": False}},
    metrics={"enabled": False},  # BentoML labels its metrics with raw URLs; ours are at /metrics
    ssl=_tls(settings),
)
class Vitrine:
    """Visual recommendation: a photo, a shopper, or both -> items of the catalogue, ranked, with reasons."""

    def __init__(self) -> None:
        started[:] = [start(settings, metrics)]

    async def __is_ready__(self) -> bool:
        return is_ready()

    @bentoml.on_startup
    async def listen(self) -> None:
        """gRPC has a port of its own."""
        drain.on_sigterm(settings.drain)
        if settings.grpc_port:
            front = GrpcFront(
                running().inference, seconds=settings.deadline, max_message_bytes=settings.max_body_bytes,
                api_key=settings.api_key, ready=is_ready,
            )  # fmt: skip
            await front.start(
                settings.grpc_host, settings.grpc_port, certificate=settings.tls_certificate, key=settings.tls_key
            )
            running().grpc = front

    @bentoml.on_shutdown
    async def stop(self) -> None:
        """Finish what is under way."""
        if (front := running().grpc) is not None:
            await front.stop(seconds=settings.deadline)
        for end in running().ending:
            end()

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
    said = {"release": recommender.release.number, "fingerprint": encoder["fingerprint"]}
    said["degraded"] = recommender.degraded()
    answers = [EmbeddingOut(**said, embedding=vector) for vector in vectors.tolist()]
    return [("", answer.model_dump_json().encode()) for answer in answers]


POSTS: dict[str, tuple[type[Body[Any]], Respond]] = {
    "/recommend": (RecommendBody, partial(_respond, "/recommend", _recommend)),
    "/similar": (SimilarBody, partial(_respond, "/similar", _similar)),
    "/embed": (EmbedBody, partial(_respond, "/embed", _embed)),
}

_service: Any = Vitrine  # the decorator made a bentoml.Service of the class
_service.add_asgi_middleware(ProblemLayer, max_body_bytes=settings.max_body_bytes, refusals=(REFUSAL,))
_service.add_asgi_middleware(DrainLayer, drain=drain)
_service.add_asgi_middleware(KeyLayer, key=settings.api_key, refusals=(REFUSAL,))
_service.add_asgi_middleware(PostLayer, posts=POSTS)
_inference_routes = routes(
    lambda: running().inference, ready=is_ready, seconds=settings.deadline, max_body_bytes=settings.max_body_bytes
)
_service.mount_asgi_app(
    create_app(lambda: running().recommender, metrics, lambda: _service.openapi_spec.asdict(), also=_inference_routes),
    path="/",
)
