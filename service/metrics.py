"""What Prometheus reads. Labels are bounded: routes and tiers are known names, never what a client sent."""

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
        self.release = Gauge("vitrine_release", "The release that answers", ["release"], registry=self.registry)

    def observe_stage(self, stage: str, seconds: float) -> None:
        """For `Recommender(observe=...)`."""
        self.stage_seconds.labels(stage).observe(seconds)
