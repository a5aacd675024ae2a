"""What Prometheus reads of the store, and of what changed since the release."""

import math
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

STORE_CALLS = ("position", "read", "write")  # that a running service makes


class StoreMetrics:
    """The part of `Metrics` that the live part is told. buckets: seconds."""

    registry: CollectorRegistry

    def add_store(self, buckets: tuple[float, ...]) -> None:
        """How the live part does."""
        registry = self.registry
        self.store_there = Gauge("vitrine_store_there", "1 while the store answers", registry=registry)
        self.store_there.set(math.nan)  # where there is none
        self.store_seconds = Histogram(
            "vitrine_store_seconds", "Time of a call of the store", ["call"], buckets=buckets, registry=registry
        )
        self.store_failures = Counter(
            "vitrine_store_failures", "Calls of the store that failed", ["call"], registry=registry
        )
        for call in STORE_CALLS:  # a counter that appears with its first failure does not show that one as a rise
            self.store_failures.labels(call)
        self.behind_changes = Gauge(
            "vitrine_store_behind_changes", "Changes that the store holds and answers do not know", registry=registry
        )
        self.behind_seconds = Gauge(
            "vitrine_store_behind_seconds", "Seconds since the first of them was seen", registry=registry
        )
        self.effect_seconds = Histogram(
            "vitrine_effect_seconds",
            "Time from the acknowledgement of a change to its effect here, by a probe every ten seconds",
            buckets=buckets,
            registry=registry,
        )
        self.live_items = Gauge("vitrine_live_items", "Items that are not as the release has them", registry=registry)
        self.live_pictures = Gauge(
            "vitrine_live_pictures", "Pictures that are searched beside the release's", registry=registry
        )
        self.release_due = Gauge(
            "vitrine_release_due", "1 where so many items changed that a new release is due", registry=registry
        )

    def observe_store(self, what: str, seconds: float) -> None:
        """For `Store(observe=...)`."""
        call, _, failed = what.partition(" ")
        self.store_seconds.labels(call).observe(seconds)
        if failed:
            self.store_failures.labels(call).inc()

    def observe_effect(self, seconds: float) -> None:
        """For `Live(metrics=...)`."""
        self.effect_seconds.observe(seconds)

    def observe_following(self, *, there: bool) -> None:
        """For `Live(metrics=...)`."""
        self.store_there.set(int(there))

    def watch_following(self, changes: Callable[[], float], seconds: Callable[[], float]) -> None:
        """For `Live(metrics=...)`. Asked with each scrape: one change may take long to apply, and says nothing then."""
        self.behind_changes.set_function(changes)
        self.behind_seconds.set_function(seconds)

    def observe_overlay(self, *, items: int, pictures: int, due: bool) -> None:
        """For `Live(metrics=...)`."""
        self.live_items.set(items)
        self.live_pictures.set(pictures)
        self.release_due.set(int(due))
