"""The deployable: one BentoML service that chains encoder, index and ranker in one process, over HTTP and gRPC."""

import logging
import os
import signal
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn
from wsgiref.simple_server import WSGIServer

# requests run side by side, one a core: a product of theirs that takes every core makes all others wait
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import bentoml
from _bentoml_impl.server.app import ServiceAppFactory
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp

from service import context
from service.errors import BadQuery, Busy, VitrineError
from service.exposure import require_safe
from service.http import admin
from service.http.middleware.api_keys import OPEN_PATHS, Key, KeyLayer, Keys
from service.http.middleware.direct_posts import PostLayer, Respond
from service.http.middleware.problems import ProblemLayer, problem_of, status_of
from service.http.middleware.request_body import IntakeLayer, Pace, Uploads
from service.http.routes import create_app
from service.http.schemas import Body, EmbedBody, EmbeddingOut, RecommendationOut, RecommendBody, SimilarBody
from service.observability import logs
from service.observability.metrics import Metrics
from service.observability.recall_monitor import RecallProbe
from service.observability.request_recorder import CallLayer, Telling
from service.open_inference.grpc_server import GrpcFront
from service.open_inference.rest import PREFIX, REFUSAL, routes
from service.recommender.pipeline import Recommender
from service.recommender.query import Query, SimilarQuery
from service.serving.batcher import MicroBatcher
from service.serving.draining import Drain, DrainLayer
from service.serving.hot_swap import Switch
from service.serving.loaded_release import Serving, open_serving, start_triton
from service.serving.trial import Bounds, Plan, Trial
from service.settings import Settings

if TYPE_CHECKING:
    from service.observability.tracing import Tracing

Gone = Callable[[], Awaitable[Any]] | None

logger = logging.getLogger("vitrine")
logger.setLevel(logging.INFO)
settings = Settings.read()
metrics = Metrics()
drain = Drain()
keys = Keys(
    {name: Key(each.key.encode(), each.rate) for name, each in settings.api_keys.items()}
    | ({"api_key": Key(settings.api_key.encode())} if settings.api_key else {})
)
uploads = Uploads(most=settings.max_uploads, most_bytes=settings.max_upload_bytes, evicted=metrics.evicted_uploads.inc)


class Running:
    """What the routes answer from, once the service has started."""

    def __init__(self) -> None:
        """Raises VitrineError where the release cannot be served."""
        self.tracing = _tracing(settings)
        self.telling = Telling(metrics, user_key=settings.user_key, log=settings.log_requests, tracing=self.tracing)
        self.triton = start_triton(settings, metrics)
        self.grpc: GrpcFront | None = None  # once it listens
        self.metrics_server: WSGIServer | None = None
        self.trial = Trial(_plan(settings), lambda path: open_serving(path, settings, metrics), metrics)
        try:
            self.switch = Switch(
                settings.release, lambda path: open_serving(path, settings, metrics),
                observe=self._switched, failed=metrics.switch_failures.inc,
            )  # fmt: skip
        except BaseException:
            if self.triton is not None:
                self.triton.close()
            raise
        self.probe = RecallProbe(
            lambda: self.switch.current.recommender.release.index, metrics.recall.set, every=settings.recall_every
        )

    def _switched(self, new: Serving, old: Serving | None) -> None:
        if old is None:
            self.batcher = MicroBatcher(
                lanes=new.lanes, largest_batch=new.largest_batch, bound=settings.max_waiting,
                observe=metrics.observe_batch,
            )  # fmt: skip
            metrics.waiting.set_function(lambda: self.batcher.waiting)
            metrics.under_way.set_function(lambda: self.batcher.under_way)
            metrics.uploads.set_function(lambda: len(uploads))
            metrics.upload_bytes.set_function(lambda: uploads.bytes)
        self.inference = new.inference(self.batcher, self.trial.answer, self._inferred)
        metrics.observe_release(new.number, new.encoder)
        self.trial.beside(new)

    def _inferred(self, model: str, error: Exception | None) -> None:
        status: int = HTTPStatus.OK if error is None else HTTPStatus.INTERNAL_SERVER_ERROR
        if isinstance(error, BadQuery | Busy):
            status = status_of(error)
        self.telling.answered(f"{PREFIX}/models/{model}/infer", status)

    def close(self) -> None:
        """Finish what is under way."""
        self.probe.close()
        self.switch.close()
        self.trial.close()
        self.batcher.close()
        if self.triton is not None:
            self.triton.close()
        if self.tracing is not None:
            self.tracing.close()


EVERYWHERE = "0.0.0.0"
started: list[Running] = []


def start(host: str = EVERYWHERE) -> None:
    """Open the release, once. host: address of HTTP; BentoML's own server listens everywhere if not told otherwise, and
    does not say. Raises VitrineError where it cannot be served."""
    logs.configure(settings.log_format)
    if not started:
        for said in settings.mistyped():
            logger.warning(said)
        hosts = (host, settings.grpc_host) if settings.grpc_port else (host,)
        require_safe(
            hosts, user_key=settings.user_key, has_api_key=bool(keys), allow_anonymous=settings.allow_anonymous
        )
        started.append(Running())


def end(error: Exception) -> NoReturn:
    """End with one line. BentoML's supervisor, which would start what cannot be served again and again, is told to end
    as well."""
    logger.error("this cannot be served: %s", error)
    with suppress(OSError):
        if b"bentoml" in Path(f"/proc/{os.getppid()}/cmdline").read_bytes():
            os.kill(os.getppid(), signal.SIGTERM)
    os._exit(1)


def say_where(host: str, port: int) -> None:
    """Log what is served, and where."""
    shown = f"[{host}]" if ":" in host else host
    scheme = "https" if settings.tls_certificate else "http"
    logger.info("release %s on %s://%s:%d", running().switch.current.number, scheme, shown, port)
    if settings.metrics_port:
        logger.info("metrics on http://%s:%d/metrics", settings.metrics_host, settings.metrics_port)


def is_ready() -> bool:
    """Whether requests are welcome."""
    return bool(started) and not drain.begun


def running() -> Running:
    """The running service."""
    assert started, "the service has not been started"
    return started[0]


def recommender() -> Recommender:
    """That of the release that answers now."""
    return running().switch.current.recommender


def _plan(settings: Settings) -> Plan | None:
    """What is tried beside production."""
    if settings.candidate is None:
        return None
    bounds = Bounds(settings.candidate_errors, settings.candidate_overlap, settings.candidate_fewest)
    return Plan(settings.candidate, settings.candidate_mode, settings.candidate_share, settings.user_key, bounds)


def _tracing(settings: Settings) -> "Tracing | None":
    if settings.traces_endpoint is None:
        return None
    from service.observability.tracing import Tracing  # a tenth of a second, and memory

    return Tracing(settings.traces_endpoint, settings.traces_share)


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
    # The batcher has the deadline, from when the body is there. BentoML's begins before, and keeps a timer for each
    # request this long: `asgi` leaves it out, under `bentoml serve` it bounds how slowly a body may come.
    traffic={"timeout": settings.deadline + 60},
    tracing={"excluded_urls": ".*"},  # BentoML records spans that nobody reads, a third of its time
    logging={"access": {"enabled": False}},
    metrics={"enabled": False},  # BentoML labels its metrics with raw URLs; ours have a port of their own
    ssl=_tls(settings),
)
class Vitrine:
    """Visual recommendation: a photo, a shopper, or both -> items of the catalogue, ranked, with reasons."""

    def __init__(self) -> None:
        try:
            start()
        except VitrineError as error:
            end(error)

    async def __is_ready__(self) -> bool:
        return is_ready()

    @bentoml.on_startup
    async def listen(self) -> None:
        """gRPC has a port of its own, and so have the metrics."""
        drain.on_sigterm(settings.drain)
        try:
            await self._listen()
        except (VitrineError, OSError) as error:
            end(error)

    async def _listen(self) -> None:
        if settings.metrics_port:
            running().metrics_server = metrics.serve(settings.metrics_host, settings.metrics_port)
        if settings.grpc_port:
            front = GrpcFront(
                lambda: running().inference, seconds=settings.deadline, max_message_bytes=settings.max_body_bytes,
                keys=keys, ready=is_ready, uploads=uploads, stall=settings.body_stall, max_age=settings.grpc_max_age,
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
        if (server := running().metrics_server) is not None:
            server.shutdown()
        running().close()

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


async def _respond(route: str, asked: Any, gone: Gone) -> Response:
    """Do the work off the event loop; count it; turn what is wrong with the query, or too much, into a problem."""
    now, call = running(), context.current()
    assert call is not None, "CallLayer makes one of each request"
    call.began = time.time_ns()
    try:
        if isinstance(asked, BadQuery):
            raise asked
        call.user_id = asked.user_id if route == "/recommend" else None

        async def ask(serving: Serving) -> tuple[str, bytes]:
            call.release = serving.number
            return await now.batcher.submit(serving.work[route], asked, seconds=settings.deadline, gone=gone)

        call.tier, body = await now.trial.answer(now.switch.current, call.user_id, ask)
        response = Response(body, media_type="application/json")
    except (BadQuery, Busy) as error:
        response = problem_of(error)
    except Exception:
        now.telling.answered(route, HTTPStatus.INTERNAL_SERVER_ERROR)
        raise
    now.telling.answered(route, response.status_code)
    return response


def _ended_early(path: str, status: int) -> None:
    """A request got its answer before a route saw it."""
    route = path if path in POSTS else PREFIX if path.startswith(PREFIX) else "other"
    running().telling.answered(route, status)


POSTS: dict[str, tuple[type[Body[Any]], Respond]] = {
    "/recommend": (RecommendBody, partial(_respond, "/recommend")),
    "/similar": (SimilarBody, partial(_respond, "/similar")),
    "/embed": (EmbedBody, partial(_respond, "/embed")),
}

_service: Any = Vitrine  # the decorator made a bentoml.Service of the class
_service.add_asgi_middleware(CallLayer, rest=PREFIX)
if settings.cors_origins:
    _service.add_asgi_middleware(
        CORSMiddleware, allow_origins=settings.cors_origins, allow_methods=["GET", "POST"], allow_headers=["*"],
        max_age=600,
    )  # fmt: skip
_service.add_asgi_middleware(ProblemLayer, refusals=(REFUSAL,))
_service.add_asgi_middleware(DrainLayer, drain=drain)
_service.add_asgi_middleware(KeyLayer, keys=keys, refusals=(REFUSAL,))
_service.add_asgi_middleware(
    IntakeLayer, uploads=uploads, max_body_bytes=settings.max_body_bytes, pace=Pace(settings.body_stall),
    answered=_ended_early, refusals=(REFUSAL,), free=(PREFIX, "/static_content", "/", *OPEN_PATHS),
)  # fmt: skip
_service.add_asgi_middleware(PostLayer, posts=POSTS)
_admin_routes = admin.routes(lambda: running().switch.to, recommender, key=settings.admin_key)
_inference_routes = routes(lambda: running().inference, ready=is_ready, seconds=settings.deadline)
_service.mount_asgi_app(
    create_app(
        recommender,
        lambda: _service.openapi_spec.asdict(),
        lambda: running().trial.described(),
        also=[*_admin_routes, *_inference_routes],
        keys=bool(keys),
    ),
    path="/",
)


def asgi() -> ASGIApp:
    """The app as `python -m service` runs it: BentoML's, without its timer."""
    _service.inject_config()
    factory = ServiceAppFactory(_service, is_main=True)
    factory.timeout = None
    app: ASGIApp = factory()
    return app
