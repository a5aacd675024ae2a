"""The live part of a running service: its store, what follows it, what writes to it, and what keeps it in order."""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from service.errors import Busy
from service.live.follower import Follower
from service.live.operations import Probe
from service.live.overlay import Overlay
from service.live.store import Store
from service.live.writer import GroupCommit
from service.recommender.pipeline import Recommender

PROBE_EVERY = 10.0  # seconds
PROBE_WITHIN = 30.0  # seconds for which the effect of a probe is waited for
PRUNE_EVERY = 3600.0
REPLIES_KEPT = 86_400.0  # seconds in which an Idempotency-Key is remembered
DAY = 86_400.0

logger = logging.getLogger("vitrine")


class LiveMetrics(Protocol):
    """Who is told how the live part does."""

    def observe_store(self, what: str, seconds: float) -> None: ...

    def observe_effect(self, seconds: float) -> None: ...

    def observe_following(self, *, there: bool) -> None: ...

    def watch_following(self, changes: Callable[[], float], seconds: Callable[[], float]) -> None: ...

    def observe_overlay(self, *, items: int, pictures: int, due: bool) -> None: ...


@dataclass(frozen=True, slots=True)
class LiveLimits:
    """wait: seconds to wait for the store at start; writes: that may wait; items: that may differ from the release
    before a new one is due; events_kept: days, 0 for ever."""

    wait: float
    writes: int
    items: int
    events_kept: float


class Live:
    """Every part, made in this order and ended in the other."""

    def __init__(self, url: str, limits: LiveLimits, metrics: LiveMetrics) -> None:
        """Raises StoreAway, StoreTooNew, UnsafeSettings."""
        self._limits, self._metrics = limits, metrics
        self.store = Store.open(url, wait=limits.wait, observe=metrics.observe_store)
        self.follower = Follower(self.store, observe=self._followed)
        self.writer = GroupCommit(
            self.store, bound=limits.writes, is_away=lambda: self.follower.away, wrote=self.follower.wake
        )
        self._production: Callable[[], Overlay | None] = lambda: None
        self._ending = threading.Event()
        self._keeping = threading.Thread(target=self._keep_in_order, name="store-keeper", daemon=True)
        self._keeping.start()

    def attach(self, recommender: Recommender) -> Overlay:
        """Bring a release up to date, and keep it so for as long as it is held. Raises StoreAway."""
        overlay = Overlay(recommender, self.store)
        self.follower.attach(overlay)
        recommender.also_degraded = self.degraded
        return overlay

    def watch(self, production: Callable[[], Overlay | None]) -> None:
        """production: the overlay of the release that answers."""
        self._production = production
        self._metrics.watch_following(self._changes_behind, self._seconds_behind)

    def degraded(self) -> list[str]:
        """What is to be said of an answer."""
        return ["store"] if self.follower.away else []

    def close(self) -> None:
        """Write what waits, and end."""
        self._ending.set()
        self._keeping.join()
        self.writer.close()
        self.follower.close()
        self.store.close()

    def _followed(self, follower: Follower) -> None:
        self._metrics.observe_following(there=not follower.away)
        if (overlay := self._production()) is not None:
            due = overlay.size > self._limits.items
            self._metrics.observe_overlay(items=overlay.size, pictures=overlay.pictures, due=due)

    def _changes_behind(self) -> int:
        overlay = self._production()
        return 0 if overlay is None else max(0, self.follower.last - overlay.position)

    def _seconds_behind(self) -> float:
        since = self.follower.behind_since
        return 0.0 if since is None else time.monotonic() - since

    def _keep_in_order(self) -> None:
        """A change that changes nothing shows how long one takes to have effect; what is too old is forgotten."""
        pruned = time.monotonic()
        while not self._ending.wait(PROBE_EVERY):
            try:
                self._probe()
                if time.monotonic() - pruned > PRUNE_EVERY:
                    pruned = time.monotonic()
                    self.prune()
            except Busy as error:  # the follower says when it is away
                logger.debug("the store is not looked after: %s", error)

    def _probe(self) -> None:
        overlay = self._production()
        if overlay is None or self.follower.away:
            return
        [reply] = self.store.write([Probe()])
        acknowledged = time.monotonic()
        while overlay.position < reply["sequence"] and time.monotonic() < acknowledged + PROBE_WITHIN:
            if self._ending.wait(0.002):
                return
        self._metrics.observe_effect(time.monotonic() - acknowledged)

    def prune(self) -> dict[str, int]:
        """Forget what is too old. Raises StoreAway."""
        now, kept = time.time(), self._limits.events_kept
        before = now - kept * DAY if kept else 0.0
        gone = self.store.prune(events_before=before, requests_before=now - REPLIES_KEPT)
        if any(gone.values()):
            logger.info("forgotten: %s", ", ".join(f"{count} {what}" for what, count in gone.items() if count))
        return gone
