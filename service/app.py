"""The deployable: one BentoML service that chains encoder, index and ranker in one process."""

import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")

import anyio
import anyio.to_thread
import bentoml
from starlette.responses import Response

from service.encoder import Encoder, available_cpus
from service.errors import BadQuery
from service.metrics import Metrics
from service.pipeline import Recommendation, Recommender
from service.problems import ProblemLayer, problem_of
from service.queries import Query, SimilarQuery
from service.ranker import DEFAULT_USER_KEY
from service.release import Release
from service.routes import create_app
from service.settings import Settings
from service.wire import EmbedBody, EmbeddingOut, RecommendationOut, RecommendBody, SimilarBody, to_json

logger = logging.getLogger("vitrine")
settings = Settings()
metrics = Metrics()


def open_recommender(settings: Settings, metrics: Metrics) -> Recommender:
    """Open the release and prove it on its golden cases. Raises ReleaseError."""
    started = time.perf_counter()
    release = Release.open(settings.release)
    encoder = Encoder(release.encoder_path, threads=settings.threads) if release.encoder_path else None
    recommender = Recommender(
        release, encoder=encoder, user_key=settings.user_key, max_pixels=settings.max_pixels,
        observe=metrics.observe_stage,
    )  # fmt: skip
    if release.ranker is not None and settings.user_key == DEFAULT_USER_KEY:
        logger.warning("user ids are hashed with the public default key; set VITRINE_USER_KEY in production")
    recommender.prove()
    metrics.release.labels(release.number).set(1)
    logger.info(
        "release %s: %d items, ready in %.2f s", release.number, len(release.items), time.perf_counter() - started
    )
    return recommender


@dataclass(slots=True)
class Running:
    """What the routes answer from, once the service has started."""

    recommender: Recommender | None = None


running = Running()


def current_recommender() -> Recommender:
    """The recommender of the running service."""
    assert running.recommender is not None, "the service has not been started"
    return running.recommender


@bentoml.service(
    name="vitrine",
    workers=1,
    traffic={"timeout": 60, "max_concurrency": settings.max_concurrency},
    metrics={"enabled": False},  # BentoML labels its metrics with raw URLs; ours are at /metrics
)
class Vitrine:
    """Visual recommendation: a photo, a shopper, or both -> items of the catalogue, ranked, with reasons."""

    def __init__(self) -> None:
        running.recommender = open_recommender(settings, metrics)
        self._limiter = anyio.CapacityLimiter(settings.threads or available_cpus())

    async def __is_ready__(self) -> bool:
        return running.recommender is not None

    @bentoml.api(route="/recommend", input_spec=RecommendBody, output_spec=RecommendationOut)
    async def recommend(self, asked: Query | BadQuery, **documented: Any) -> Response:
        """Items for a shopper, a photo, or both; each with the terms of its score and the reasons."""
        return await self._respond("/recommend", asked, lambda query: _answer(current_recommender().recommend([query])))

    @bentoml.api(route="/similar", input_spec=SimilarBody, output_spec=RecommendationOut)
    async def similar(self, asked: SimilarQuery | BadQuery, **documented: Any) -> Response:
        """Items that look like a photo, or like an item."""
        return await self._respond("/similar", asked, lambda query: _answer(current_recommender().similar([query])))

    @bentoml.api(route="/embed", input_spec=EmbedBody, output_spec=EmbeddingOut)
    async def embed(self, asked: Query | BadQuery, **documented: Any) -> Response:
        """The unit vector of a photo."""
        return await self._respond("/embed", asked, _embed)

    async def _respond(self, route: str, asked: Any, work: Callable[[Any], tuple[str, bytes]]) -> Response:
        """Do the work off the event loop; count it; turn what is wrong with the query into a problem."""
        started = time.perf_counter()
        tier = ""
        try:
            if isinstance(asked, BadQuery):
                raise asked
            tier, body = await anyio.to_thread.run_sync(partial(work, asked), limiter=self._limiter)
            response = Response(body, media_type="application/json")
        except BadQuery as error:
            response = problem_of(error)
        metrics.requests.labels(route, str(response.status_code), tier).inc()
        metrics.seconds.labels(route).observe(time.perf_counter() - started)
        return response


def _answer(recommendations: list[Recommendation]) -> tuple[str, bytes]:
    return recommendations[0].tier, to_json(recommendations[0])


def _embed(query: Query) -> tuple[str, bytes]:
    recommender = current_recommender()
    assert query.image is not None
    vector = recommender.embed([query.image], boxes=[query.box])[0]
    encoder = recommender.release.manifest.encoder
    assert encoder is not None
    out = EmbeddingOut(
        release=recommender.release.number, fingerprint=encoder["fingerprint"], embedding=vector.tolist()
    )
    return "", out.model_dump_json().encode()


_service: Any = Vitrine  # the decorator made a bentoml.Service of the class
_service.add_asgi_middleware(ProblemLayer, max_body_bytes=settings.max_body_bytes)
_service.mount_asgi_app(create_app(current_recommender, metrics, lambda: _service.openapi_spec.asdict()), path="/")
