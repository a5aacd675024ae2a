"""The deployable: one BentoML service that chains encoder, index and ranker in one process, over HTTP and gRPC."""

import logging
import os
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

# requests run side by side, one a core: a product of theirs that takes every core makes all others wait
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import bentoml
from _bentoml_impl.server.app import ServiceAppFactory
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from service import pauses
from service.errors import VitrineError
from service.exposure import require_safe
from service.http import admin, live_routes
from service.http.endpoints import Endpoint, EndpointLayer
from service.http.middleware.api_keys import OPEN_PATHS, Key, KeyLayer, Keys
from service.http.middleware.problems import ProblemLayer
from service.http.middleware.request_body import Pace, RequestBodyLayer, Uploads
from service.http.routes import create_app
from service.http.schemas import EmbedBody, EmbeddingOut, RecommendationOut, RecommendBody, SimilarBody
from service.live.api import LiveApi
from service.observability import logs
from service.observability.metrics import Metrics
from service.observability.request_recorder import RequestContextLayer
from service.open_inference.rest import PREFIX, REFUSAL, routes
from service.recommender.pipeline import Recommender
from service.recommender.query import Query, SimilarQuery
from service.recommender.recommendation import Embedding, Recommendation
from service.runtime import Runtime
from service.serving.draining import Drain, DrainLayer
from service.settings import Settings

Gone = Callable[[], Awaitable[Any]] | None

EVERYWHERE = "0.0.0.0"

logger = logging.getLogger("vitrine")
logger.setLevel(logging.INFO)


class Service:
    """The one service of this process: made when this module is imported, started once its address is known."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self.drain = Drain()
        keys = {name: Key(each.key.encode(), each.rate) for name, each in settings.api_keys.items()}
        self.keys = Keys(keys | ({"api_key": Key(settings.api_key.encode())} if settings.api_key else {}))
        self.uploads = Uploads(
            most=settings.max_uploads, most_bytes=settings.max_upload_bytes, evicted=self.metrics.evicted_uploads.inc
        )
        self._runtime: Runtime | None = None

    def start(self, host: str = EVERYWHERE) -> None:
        """Open the release, once.

        host: address of HTTP; BentoML's own server listens everywhere if not told otherwise, and does not say. Raises
        VitrineError where the release cannot be served."""
        settings = self.settings
        logs.configure(settings.log_format)
        if self._runtime is not None:
            return
        for said in settings.mistyped():
            logger.warning(said)
        hosts = (host, settings.grpc_host) if settings.grpc_port else (host,)
        require_safe(
            hosts,
            user_key=settings.user_key,
            has_api_key=bool(self.keys),
            allow_anonymous=settings.allow_anonymous,
        )
        self._runtime = Runtime(settings, self.metrics)
        pauses.keep_short()

    async def listen(self) -> None:
        """gRPC has a port of its own, and so have the metrics. Raises VitrineError, OSError."""
        self.drain.on_sigterm(self.settings.drain)
        await self.runtime.listen(keys=self.keys, uploads=self.uploads, drain=self.drain)

    @property
    def runtime(self) -> Runtime:
        """The running parts."""
        assert self._runtime is not None, "the service has not been started"
        return self._runtime

    def is_ready(self) -> bool:
        """Whether requests are welcome."""
        return self._runtime is not None and not self.drain.begun

    def recommender(self) -> Recommender:
        """That of the release in production now."""
        return self.runtime.rollout.production.recommender

    def live(self) -> LiveApi:
        """What changes and events are told. Raises NotFound where the service keeps none."""
        return self.runtime.live()

    def answered(self, route: str, status: int) -> None:
        """Record a request that a route has answered."""
        self.runtime.recorder.answered(route, status)

    async def recommend(self, query: Query, gone: Gone) -> Recommendation:
        """Items for a user, a photo, or both."""
        return await self.runtime.answering.recommend(query, deadline=self.settings.deadline, gone=gone)

    async def similar(self, query: SimilarQuery, gone: Gone) -> Recommendation:
        """Items that look like a photo, or like an item."""
        return await self.runtime.answering.similar(query, deadline=self.settings.deadline, gone=gone)

    async def embed(self, query: Query, gone: Gone) -> Embedding:
        """The unit vector of a photo."""
        return await self.runtime.answering.embed(query, deadline=self.settings.deadline, gone=gone)

    def refused(self, path: str, status: int) -> None:
        """Record a request that was answered before a route saw it."""
        known = [endpoint.path for endpoint in ENDPOINTS if endpoint.path == path]
        route = known[0] if known else PREFIX if path.startswith(PREFIX) else "other"
        self.runtime.recorder.answered(route, status)

    def say_where(self, host: str, port: int) -> None:
        """Log what is served, and where."""
        settings = self.settings
        shown = f"[{host}]" if ":" in host else host
        scheme = "https" if settings.tls_certificate else "http"
        logger.info("release %s on %s://%s:%d", self.runtime.rollout.production.number, scheme, shown, port)
        if settings.metrics_port:
            logger.info("metrics on http://%s:%d/metrics", settings.metrics_host, settings.metrics_port)


def end(error: Exception) -> NoReturn:
    """End with one line. BentoML's supervisor, which would start what cannot be served again and again, is told to end
    as well."""
    logger.error("this cannot be served: %s", error)
    with suppress(OSError):
        if b"bentoml" in Path(f"/proc/{os.getppid()}/cmdline").read_bytes():
            os.kill(os.getppid(), signal.SIGTERM)
    os._exit(1)


def _tls(settings: Settings) -> dict[str, Any]:
    """What BentoML needs to serve HTTP over TLS."""
    if (settings.tls_certificate is None) != (settings.tls_key is None):
        raise VitrineError("VITRINE_TLS_CERTIFICATE and VITRINE_TLS_KEY go together: set both, or none")
    if settings.tls_certificate is None:
        return {"enabled": False}
    return {"enabled": True, "certfile": str(settings.tls_certificate), "keyfile": str(settings.tls_key)}


vitrine = Service(Settings.read())
ENDPOINTS = (
    Endpoint("/recommend", RecommendBody, vitrine.recommend),
    Endpoint("/similar", SimilarBody, vitrine.similar),
    Endpoint("/embed", EmbedBody, vitrine.embed),
)


@bentoml.service(
    name="vitrine",
    workers=1,
    # The batcher has the deadline, from when the body is there. BentoML's begins before, and keeps a timer for each
    # request this long: `asgi` leaves it out, under `bentoml serve` it bounds how slowly a body may come.
    traffic={"timeout": vitrine.settings.deadline + 60},
    tracing={"excluded_urls": ".*"},  # BentoML records spans that nobody reads, a third of its time
    logging={"access": {"enabled": False}},
    metrics={"enabled": False},  # BentoML labels its metrics with raw URLs; ours have a port of their own
    ssl=_tls(vitrine.settings),
)
class Vitrine:
    """Visual recommendation: a photo, a user, or both -> items of the catalogue, ranked, with reasons."""

    def __init__(self) -> None:
        try:
            vitrine.start()
        except VitrineError as error:
            end(error)

    async def __is_ready__(self) -> bool:
        return vitrine.is_ready()

    @bentoml.on_startup
    async def listen(self) -> None:
        """Open the other ports, or end."""
        try:
            await vitrine.listen()
        except (VitrineError, OSError) as error:
            end(error)

    @bentoml.on_shutdown
    async def stop(self) -> None:
        """Finish what is under way."""
        await vitrine.runtime.close()

    @bentoml.api(route="/recommend", input_spec=RecommendBody, output_spec=RecommendationOut)
    async def recommend(self, query: Query, **documented: Any) -> Recommendation:
        """Items for a user, a photo, or both; each with the terms of its score and the reasons."""
        return await vitrine.recommend(query, None)

    @bentoml.api(route="/similar", input_spec=SimilarBody, output_spec=RecommendationOut)
    async def similar(self, query: SimilarQuery, **documented: Any) -> Recommendation:
        """Items that look like a photo, or like an item."""
        return await vitrine.similar(query, None)

    @bentoml.api(route="/embed", input_spec=EmbedBody, output_spec=EmbeddingOut)
    async def embed(self, query: Query, **documented: Any) -> Embedding:
        """The unit vector of a photo."""
        return await vitrine.embed(query, None)


_event_routes = live_routes.event_routes(vitrine.live, answered=vitrine.answered)
_bento: Any = Vitrine  # the decorator made a bentoml.Service of the class
_bento.add_asgi_middleware(RequestContextLayer, rest=PREFIX)
if vitrine.settings.cors_origins:
    _bento.add_asgi_middleware(
        CORSMiddleware,
        allow_origins=vitrine.settings.cors_origins,
        allow_methods=["GET", "POST", "PUT", "PATCH", "DELETE"],
        allow_headers=["*"],
        max_age=600,
    )
_bento.add_asgi_middleware(ProblemLayer, refusals=(REFUSAL,))
_bento.add_asgi_middleware(DrainLayer, drain=vitrine.drain)
_bento.add_asgi_middleware(KeyLayer, keys=vitrine.keys, refusals=(REFUSAL,))
_bento.add_asgi_middleware(
    RequestBodyLayer,
    uploads=vitrine.uploads,
    max_body_bytes=vitrine.settings.max_body_bytes,
    pace=Pace(vitrine.settings.body_stall),
    answered=vitrine.refused,
    refusals=(REFUSAL,),
    free=(PREFIX, "/static_content", "/items", "/", *OPEN_PATHS),
)
_bento.add_asgi_middleware(
    EndpointLayer,
    endpoints=ENDPOINTS,
    answered=vitrine.answered,
    direct=_event_routes,
)
_admin_routes = admin.routes(
    lambda number: vitrine.runtime.rollout.switch(number), vitrine.recommender, key=vitrine.settings.admin_key
)
_live_routes = [
    *live_routes.item_routes(vitrine.live, key=vitrine.settings.catalogue_key, answered=vitrine.answered),
    *_event_routes,
    *live_routes.user_routes(vitrine.live, key=vitrine.settings.admin_key, answered=vitrine.answered),
]
_inference_routes = routes(lambda: vitrine.runtime.inference, ready=vitrine.is_ready, seconds=vitrine.settings.deadline)
_bento.mount_asgi_app(
    create_app(
        vitrine.recommender,
        lambda: _bento.openapi_spec.asdict(),
        lambda: vitrine.runtime.rollout.describe_candidate(),
        also=[*_live_routes, *_admin_routes, *_inference_routes],
        live=vitrine.live,
        keeps=vitrine.settings.store is not None,
        keys=bool(vitrine.keys),
    ),
    path="/",
)


def asgi() -> ASGIApp:
    """The app as `python -m service` runs it: BentoML's, without its timer."""
    _bento.inject_config()
    factory = ServiceAppFactory(_bento, is_main=True)
    factory.timeout = None
    app: ASGIApp = factory()
    return app
