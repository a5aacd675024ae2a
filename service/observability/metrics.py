"""What Prometheus reads. Labels are bounded: routes and tiers are known names, never what a client sent."""

import json
import math
import os
from collections import Counter as Counts
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any
from wsgiref.simple_server import WSGIServer

# BentoML sets it for services of several processes; their values lie in files, and each costs three times as much
os.environ.pop("PROMETHEUS_MULTIPROC_DIR", None)

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    Summary,
    disable_created_metrics,
    make_wsgi_app,
    start_http_server,
)

from service.errors import VitrineError
from service.observability.store_metrics import StoreMetrics
from service.recommender.agreement import Comparison
from service.recommender.drift.reference import WHAT
from service.recommender.drift.stability import Drift

disable_created_metrics()  # type: ignore[no-untyped-call] # half of the page, and nobody asks

STAGE_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
CANDIDATE, PRODUCTION = "candidate", "production"

Page = Callable[[], Mapping[str, Any]]  # gives the JSON that a path of the metrics port answers


class Metrics(StoreMetrics):
    """The counters of one service process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._add_requests()
        self._add_parts()
        self._add_drift()
        self._add_candidate()
        self.add_store(STAGE_BUCKETS)
        ProcessCollector(registry=self.registry)  # memory, CPU, open files
        self._tritons: Counts[str] = Counts()  # how often each release is open
        # finding the counter of some labels costs more than counting
        self._of_stage = cache(self.stage_seconds.labels)
        self._of_answer = cache(self.requests.labels)
        self._of_route = cache(self.seconds.labels)

    def _add_requests(self) -> None:
        """What becomes of requests, and how long it takes."""
        self.requests = Counter(
            "vitrine_requests",
            "Requests answered; the inference protocol's status is what REST would say",
            ["route", "protocol", "status", "tier", "release"],
            registry=self.registry,
        )
        self.seconds = Histogram(
            "vitrine_request_seconds",
            "Time from parsed request to answer",
            ["route", "protocol", "tier", "release"],
            buckets=STAGE_BUCKETS,
            registry=self.registry,
        )
        self.stage_seconds = Histogram(
            "vitrine_stage_seconds",
            "Time in each stage of the pipeline",
            ["stage"],
            buckets=STAGE_BUCKETS,
            registry=self.registry,
        )
        self.batch = Histogram(
            "vitrine_batch_requests", "Requests answered together", buckets=(1, 2, 4, 8, 16, 32), registry=self.registry
        )
        self.wait_seconds = Histogram(
            "vitrine_wait_seconds",
            "Time that the first of a batch waited for a free thread",
            buckets=STAGE_BUCKETS,
            registry=self.registry,
        )
        self.under_way = Gauge(
            "vitrine_requests_under_way", "Requests that wait or are being answered", registry=self.registry
        )
        self.waiting = Gauge("vitrine_waiting_requests", "Requests that wait for a free thread", registry=self.registry)
        self.uploads = Gauge("vitrine_uploads", "Requests whose bodies are held", registry=self.registry)
        self.upload_bytes = Gauge("vitrine_upload_bytes", "Bytes of those bodies", registry=self.registry)
        self.evicted_uploads = Counter(
            "vitrine_evicted_uploads", "Bodies that came too slowly and had to make room", registry=self.registry
        )

    def _add_parts(self) -> None:
        """Which release answers, and how its index and its encoder do."""
        self.recall = Gauge(
            "vitrine_index_recall",
            "Share of the ten nearest that searches find, over the last probes",
            registry=self.registry,
        )
        self.recall.set(math.nan)  # until there was one
        self.encoder = Gauge(
            "vitrine_encoder", "The engine and precision in use", ["engine", "precision"], registry=self.registry
        )
        self.triton_there = Gauge(
            "vitrine_triton_there", "1 while Triton gives the release's vectors", ["release"], registry=self.registry
        )
        self.triton_fallbacks = Counter(
            "vitrine_triton_fallbacks", "Calls answered in this process while Triton was away", registry=self.registry
        )
        self.triton_starts = Counter(
            "vitrine_triton_starts", "Starts of the Triton server in this container", registry=self.registry
        )
        self.switch_failures = Counter(
            "vitrine_switch_failures", "Releases that could not take over", registry=self.registry
        )
        self.release = Gauge("vitrine_release", "The release that answers", ["release"], registry=self.registry)

    def _add_drift(self) -> None:
        """Whether the photos that come in are those that the release expects."""
        self.drift = Gauge(
            "vitrine_drift",
            "Population stability index of the photos of the last hour beside those that the release expects",
            ["what"],
            registry=self.registry,
        )
        self.drift_chance = Gauge(
            "vitrine_drift_chance",
            "What that index is below in 99 of 100 samples of so many photos without drift",
            ["what"],
            registry=self.registry,
        )
        self.drift_photos = Gauge(
            "vitrine_drift_photos", "Photos of the last hour that were counted for it", ["what"], registry=self.registry
        )

    def triton_of(self, release: str) -> Gauge:
        """1 while Triton gives the vectors of this release. A release may be open twice while one takes over."""
        self._tritons[release] += 1
        return self.triton_there.labels(release)

    def forget_triton_of(self, release: str) -> None:
        """The release is open once less; where it was the last time, there is nothing more to say of it."""
        self._tritons[release] -= 1
        if not self._tritons[release]:
            self.triton_there.remove(release)

    def _add_candidate(self) -> None:
        """What becomes of a candidate beside production."""
        self.candidate = Gauge(
            "vitrine_candidate", "The candidate beside production", ["release", "mode", "state"], registry=self.registry
        )
        self.candidate_stops = Counter(
            "vitrine_candidate_stops", "Candidates that were taken out", registry=self.registry
        )
        self.canary = Counter(
            "vitrine_canary_requests",
            "Users' requests that fell to the candidate",
            ["outcome"],
            registry=self.registry,
        )
        self.shadow = Counter(
            "vitrine_shadow_queries", "Queries for the candidate in the shadow", ["outcome"], registry=self.registry
        )
        self.shadow_overlap = Histogram(
            "vitrine_shadow_overlap",
            "Share of production's first ten items that the candidate shows",
            buckets=[tenth / 10 for tenth in range(11)],
            registry=self.registry,
        )
        self.shadow_correlation = Summary(  # a histogram of values below zero has no sum
            "vitrine_shadow_rank_correlation", "Kendall's tau of both orders, -1 to 1", registry=self.registry
        )
        self.shadow_cold = Summary(
            "vitrine_shadow_cold_share",
            "Share of shown items that nobody has touched",
            ["side"],
            registry=self.registry,
        )
        self.shadow_coverage = Gauge(
            "vitrine_shadow_coverage", "Share of the catalogue shown so far", ["side"], registry=self.registry
        )
        self.shadow_seconds = Summary(
            "vitrine_shadow_seconds", "Seconds of a query, both asked in the shadow", ["side"], registry=self.registry
        )

    def serve(self, host: str, port: int, pages: Mapping[str, Page]) -> WSGIServer:
        """Answer GET /metrics on a port of its own, in a thread, and JSON at the paths of `pages`.

        Raises VitrineError where the port is taken."""
        try:
            server, _ = start_http_server(port, addr=host, registry=self.registry)
        except OSError as error:
            raise VitrineError(
                f"the metrics cannot listen on {host} port {port} ({error.strerror}); set VITRINE_METRICS_PORT"
            ) from error
        server.set_app(_with_pages(make_wsgi_app(self.registry), pages))
        return server

    def candidate_is(self, release: str, mode: str, state: str) -> None:
        """For `Candidate(metrics=...)`."""
        self.candidate.clear()
        self.candidate.labels(release, mode, state).set(1)
        if state == "stopped":
            self.candidate_stops.inc()

    def canary_answered(self, failed: bool) -> None:
        """For `Candidate(metrics=...)`."""
        self.canary.labels("failed" if failed else "answered").inc()

    def shadow_was(self, outcome: str, comparison: Comparison | None) -> None:
        """For `Candidate(metrics=...)`."""
        self.shadow.labels(outcome).inc()
        if comparison is None:
            return
        self.shadow_overlap.observe(comparison.overlap)
        self.shadow_correlation.observe(comparison.correlation)
        self.shadow_cold.labels(CANDIDATE).observe(comparison.cold)
        self.shadow_cold.labels(PRODUCTION).observe(comparison.cold_production)
        self.shadow_coverage.labels(CANDIDATE).set(comparison.coverage)
        self.shadow_coverage.labels(PRODUCTION).set(comparison.coverage_production)
        for side, seconds in zip((CANDIDATE, PRODUCTION), comparison.seconds or (), strict=False):
            self.shadow_seconds.labels(side).observe(seconds)

    def drift_is(self, drift: Drift) -> None:
        """For `DriftMonitor(tell=...)`. NaN where there is nothing to compare."""
        shifts = {shift.what: shift for shift in drift.shifts}
        for what in WHAT:
            shift = shifts.get(what)
            self.drift.labels(what).set(shift.psi if shift else math.nan)
            self.drift_chance.labels(what).set(shift.chance if shift else math.nan)
            self.drift_photos.labels(what).set(shift.photos if shift else 0)

    def observe_batch(self, what: str, value: float) -> None:
        """For `MicroBatcher(observe=...)`."""
        (self.batch if what == "batch" else self.wait_seconds).observe(value)

    def observe_stage(self, stage: str, seconds: float) -> None:
        """For `Recommender(observe=...)`."""
        self._of_stage(stage).observe(seconds)

    def observe_answer(self, route: str, protocol: str, status: int, tier: str, release: str, seconds: float) -> None:
        """Count one answer of a route."""
        self._of_answer(route, protocol, str(status), tier, release).inc()
        self._of_route(route, protocol, tier, release).observe(seconds)

    def observe_release(self, number: str, encoder: str) -> None:
        """Say which release answers from now on, and what computes its vectors, such as `openvino int8`, or
        "" where it has none."""
        self.release.clear()
        self.release.labels(number).set(1)
        self.encoder.clear()
        if encoder:
            self.encoder.labels(*encoder.split()).set(1)


def _with_pages(metrics: Callable[..., Any], pages: Mapping[str, Page]) -> Callable[..., Any]:
    """A WSGI app that answers these paths with JSON, and all others as that of the metrics does."""

    def app(environ: Mapping[str, Any], start_response: Callable[..., Any]) -> Any:
        page = pages.get(environ["PATH_INFO"])
        if page is None:
            return metrics(environ, start_response)
        start_response("200 OK", [("Content-Type", "application/json")])
        return [json.dumps(page()).encode()]

    return app
