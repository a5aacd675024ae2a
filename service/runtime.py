"""What the routes answer from, once the service has started."""

from collections.abc import Sequence
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING
from wsgiref.simple_server import WSGIServer

from service.errors import BadQuery, Busy, NotFound
from service.http.middleware.api_keys import Keys
from service.http.middleware.problems import status_of
from service.http.middleware.request_body import Uploads
from service.live.api import LiveApi
from service.live.operations import Picture
from service.live.overlay import Overlay
from service.live.runtime import Live, LiveLimits
from service.observability.drift_monitor import DriftMonitor
from service.observability.metrics import Metrics
from service.observability.recall_monitor import RecallMonitor
from service.observability.request_recorder import RequestRecorder
from service.open_inference.catalogue_model import catalogue_model
from service.open_inference.grpc_server import GrpcFront
from service.open_inference.models import models
from service.open_inference.rest import PREFIX
from service.open_inference.server import Inference
from service.serving.answering import Answering
from service.serving.batcher import MicroBatcher
from service.serving.candidate import Plan
from service.serving.draining import Drain
from service.serving.guardrails import Bounds
from service.serving.loaded_release import LoadedRelease, open_release
from service.serving.release_encoder import start_triton
from service.serving.rollout import Rollout
from service.settings import Settings

MOST_WRITES = 10_000  # that may wait: a body of JSON lines is one each

if TYPE_CHECKING:
    from service.observability.tracing import Tracing


class Runtime:
    """Every part of a running service, made in this order and ended in the other."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        """Raises VitrineError where the release cannot be served."""
        self._settings, self._metrics = settings, metrics
        self._tracing = _tracing(settings)
        self.recorder = RequestRecorder(
            metrics, user_key=settings.user_key, log=settings.log_requests, tracing=self._tracing
        )
        self._triton = start_triton(settings, metrics)
        self._live: Live | None = None
        self.inference: Inference
        try:
            if settings.store is not None:
                self._live = Live(settings.store, _limits(settings), metrics)
            self._open(settings, metrics)
        except BaseException:
            if self._live is not None:
                self._live.close()
            if self._triton is not None:
                self._triton.close()
            raise
        self._grpc: GrpcFront | None = None
        self._metrics_server: WSGIServer | None = None

    def _open(self, settings: Settings, metrics: Metrics) -> None:
        self._drift = DriftMonitor(metrics.drift_is, window=settings.drift_window)
        self.rollout = Rollout(
            settings.release,
            partial(
                open_release,
                settings=settings,
                metrics=metrics,
                live=self._live,
                photo_listener=self._drift.offer,
            ),
            plan=_plan(settings),
            metrics=metrics,
            switch_failed=metrics.switch_failures.inc,
        )
        self.batcher = MicroBatcher(
            lanes=self.rollout.production.lanes,
            largest_batch=self.rollout.production.largest_batch,
            bound=settings.max_waiting,
            observe=metrics.observe_batch,
        )
        self.answering = Answering(self.rollout, self.batcher)
        self._live_api: LiveApi | None = None
        if self._live is not None:
            self._live.watch(lambda: self.rollout.production.overlay)
            self._live_api = LiveApi(
                self._live.store,
                self._live.follower,
                self._live.writer,
                overlay=self._overlay,
                look_at=self._look_at,
                user_key=settings.user_key,
            )
        self.rollout.watch(self._switched)
        self._recall = RecallMonitor(
            lambda: self.rollout.production.recommender.release.index, metrics.recall.set, every=settings.recall_every
        )

    def live(self) -> LiveApi:
        """What changes and events are told. Raises NotFound where the service keeps none."""
        if self._live_api is None:
            raise NotFound("this service keeps no changes and no events: VITRINE_STORE says where to")
        return self._live_api

    def _overlay(self) -> Overlay:
        overlay = self.rollout.production.overlay
        assert overlay is not None, "every release that is opened beside a store has one"
        return overlay

    async def _look_at(self, contents: Sequence[bytes]) -> list[Picture]:
        work = self._overlay().reader.read
        return await self.batcher.submit(work, contents, deadline=self._settings.deadline)

    async def listen(self, *, keys: Keys, uploads: Uploads, drain: Drain) -> None:
        """Open the ports beside HTTP's. Raises VitrineError, OSError."""
        settings, metrics = self._settings, self._metrics
        metrics.waiting.set_function(lambda: self.batcher.waiting)
        metrics.under_way.set_function(lambda: self.batcher.under_way)
        metrics.uploads.set_function(lambda: len(uploads))
        metrics.upload_bytes.set_function(lambda: uploads.bytes)
        if settings.metrics_port:
            pages = {"/drift": lambda: self._drift.drift.as_json()}
            self._metrics_server = metrics.serve(settings.metrics_host, settings.metrics_port, pages)
        if settings.grpc_port:
            front = GrpcFront(
                lambda: self.inference,
                seconds=settings.deadline,
                max_message_bytes=settings.max_body_bytes,
                keys=keys,
                ready=lambda: not drain.begun,
                uploads=uploads,
                stall=settings.body_stall,
                max_age=settings.grpc_max_age,
            )
            await front.start(
                settings.grpc_host, settings.grpc_port, certificate=settings.tls_certificate, key=settings.tls_key
            )
            self._grpc = front

    async def close(self) -> None:
        """Finish what is under way."""
        if self._grpc is not None:
            await self._grpc.stop(seconds=self._settings.deadline)
        if self._metrics_server is not None:
            self._metrics_server.shutdown()
        self._recall.close()
        self._drift.close()
        self.rollout.close()
        self.batcher.close()
        if self._live is not None:
            self._live.close()
        if self._triton is not None:
            self._triton.close()
        if self._tracing is not None:
            self._tracing.close()

    def _switched(self, production: LoadedRelease) -> None:
        key = self._settings.catalogue_key
        also = [] if self._live_api is None or key is None else [catalogue_model(self.live, key)]
        self.inference = Inference(models(production, self.answering, also), production.number, self._inferred)
        self._metrics.observe_release(production.number, production.encoder)
        self._drift.follow(production.recommender.release)

    def _inferred(self, model: str, error: Exception | None) -> None:
        status: int = HTTPStatus.OK if error is None else HTTPStatus.INTERNAL_SERVER_ERROR
        if isinstance(error, BadQuery | Busy):
            status = status_of(error)
        self.recorder.answered(f"{PREFIX}/models/{model}/infer", status)


def _limits(settings: Settings) -> LiveLimits:
    return LiveLimits(
        wait=settings.store_wait,
        writes=MOST_WRITES,
        items=settings.live_items,
        events_kept=settings.events_kept,
    )


def _plan(settings: Settings) -> Plan | None:
    """What is tried beside production."""
    if settings.candidate is None:
        return None
    bounds = Bounds(settings.candidate_errors, settings.candidate_overlap, settings.candidate_fewest)
    return Plan(
        settings.candidate, settings.candidate_mode, settings.candidate_share, settings.user_key, bounds, settings.store
    )


def _tracing(settings: Settings) -> "Tracing | None":
    if settings.traces_endpoint is None:
        return None
    from service.observability.tracing import Tracing  # a tenth of a second, and memory

    return Tracing(settings.traces_endpoint, settings.traces_share)
