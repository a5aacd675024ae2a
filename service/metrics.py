"""What Prometheus reads. Labels are bounded: routes and tiers are known names, never what a client sent."""

import os
from functools import cache

# BentoML sets it for services of several processes; their values lie in files, and each costs three times as much
os.environ.pop("PROMETHEUS_MULTIPROC_DIR", None)

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

STAGE_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


class Metrics:
    """The counters of one service process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "vitrine_requests", "Requests answered", ["route", "status", "tier"], registry=self.registry
        )
        self.seconds = Histogram(
            "vitrine_request_seconds", "Time from parsed request to answer", ["route"],
            buckets=STAGE_BUCKETS, registry=self.registry,
        )  # fmt: skip
        self.stage_seconds = Histogram(
            "vitrine_stage_seconds", "Time in each stage of the pipeline", ["stage"],
            buckets=STAGE_BUCKETS, registry=self.registry,
        )  # fmt: skip
        self.batch = Histogram(
            "vitrine_batch_requests", "Requests answered together", buckets=(1, 2, 4, 8, 16, 32), registry=self.registry
        )
        self.wait_seconds = Histogram(
            "vitrine_wait_seconds", "Time that the first of a batch waited for a free thread",
            buckets=STAGE_BUCKETS, registry=self.registry,
        )  # fmt: skip
        self.waiting = Gauge("vitrine_waiting_requests", "Requests that wait for a free thread", registry=self.registry)
        self.encoder = Gauge(
            "vitrine_encoder", "The engine and precision in use", ["engine", "precision"], registry=self.registry
        )
        self.triton_there = Gauge(
            "vitrine_triton_there", "1 while Triton gives the release's vectors", registry=self.registry
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
        # finding the counter of some labels costs more than counting
        self._of_stage = cache(self.stage_seconds.labels)
        self._of_answer = cache(self.requests.labels)
        self._of_route = cache(self.seconds.labels)
        self.inferences = Counter(
            "vitrine_inferences", "Requests of the inference protocol, over REST and gRPC",
            ["model", "outcome", "tier"], registry=self.registry,
        )  # fmt: skip
        self.inference_seconds = Histogram(
            "vitrine_inference_seconds", "Time from parsed request to answer", ["model"],
            buckets=STAGE_BUCKETS, registry=self.registry,
        )  # fmt: skip
        self._of_inference = cache(self.inferences.labels)
        self._of_model = cache(self.inference_seconds.labels)

    def observe_batch(self, what: str, value: float) -> None:
        """For `MicroBatcher(observe=...)`."""
        (self.batch if what == "batch" else self.wait_seconds).observe(value)

    def observe_stage(self, stage: str, seconds: float) -> None:
        """For `Recommender(observe=...)`."""
        self._of_stage(stage).observe(seconds)

    def observe_answer(self, route: str, status: int, tier: str, seconds: float) -> None:
        """Count one answer of a route."""
        self._of_answer(route, str(status), tier).inc()
        self._of_route(route).observe(seconds)

    def observe_release(self, number: str, encoder: str) -> None:
        """Say which release answers from now on, and what computes its vectors, such as `openvino int8`."""
        self.release.clear()
        self.release.labels(number).set(1)
        self.encoder.clear()
        if encoder.strip():
            self.encoder.labels(*encoder.split()).set(1)

    def observe_inference(self, model: str, outcome: str, tier: str, seconds: float) -> None:
        """For `Inference(observe=...)`."""
        self._of_inference(model, outcome, tier).inc()
        self._of_model(model).observe(seconds)
