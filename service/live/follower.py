"""A thread that looks for what came into the store, from whichever process, and applies it to every open release."""

import asyncio
import logging
import threading
import time
import weakref
from collections.abc import Callable

from service.errors import Busy, StoreAway
from service.live.overlay import Overlay
from service.live.store import Store

EVERY = 0.1  # seconds between looks
LEAST = 0.04  # ... at least, however often it is woken
AWAY_EVERY = 1.0  # ... at a store that is away
CHECK = 0.005  # seconds between looks at whether a change is applied

logger = logging.getLogger("vitrine")


class Follower:
    """Keeps overlays up to date."""

    def __init__(self, store: Store, *, observe: Callable[["Follower"], None] = lambda follower: None) -> None:
        """observe: called after each look."""
        self._store, self._observe = store, observe
        self._overlays: weakref.WeakSet[Overlay] = weakref.WeakSet()
        self._applying = threading.Lock()
        self._wake, self._ending = threading.Event(), threading.Event()
        self.away = False
        self._reached = 0  # what every overlay holds that could be brought up to date
        self.last = 0  # the number of the store's last change, as far as it is known
        self.behind_since: float | None = None  # when a change that is not applied yet was first seen
        self._thread = threading.Thread(target=self._run, name="store-follower", daemon=True)
        self._thread.start()

    def attach(self, overlay: Overlay) -> None:
        """Bring an overlay up to date, and keep it so for as long as its release is held. Raises StoreAway."""
        overlay.catch_up()  # which may take long; the others go on meanwhile
        with self._applying:
            overlay.catch_up()
            self._overlays.add(overlay)
        self.last = max(self.last, overlay.position)

    def wake(self) -> None:
        """Something was written."""
        self._wake.set()

    async def applied(self, overlay: Overlay, number: int, *, within: float) -> bool:
        """Wait until this overlay holds the change of this number, and so does every other that may answer; returns
        whether that is so within so many seconds. Others that cannot be brought up to date are not waited for."""
        deadline = time.monotonic() + within
        while min(overlay.position, self._reached) < number:
            if time.monotonic() >= deadline:
                return False
            await asyncio.sleep(CHECK)
        return True

    def close(self) -> None:
        """Follow no longer."""
        self._ending.set()
        self._wake.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ending.wait(LEAST):
            self._wake.wait(AWAY_EVERY if self.away else EVERY)
            self._wake.clear()
            try:
                self._look()
                if self.away:
                    logger.info("the store is back")
                self.away = False
            except StoreAway as error:
                if not self.away:
                    logger.error("recommendations go on from memory: %s", error)
                self.away = True
            except Busy as error:
                logger.warning("changes are applied later: %s", error)
            except Exception:
                logger.exception("changes could not be applied, and are tried again")
                self._ending.wait(AWAY_EVERY)
            self._observe(self)

    def _look(self) -> None:
        """Raises what the first raises that could not be brought up to date, once all others are."""
        self.last = self._store.position()
        failed: list[Exception] = []
        reached = self.last
        with self._applying:
            for overlay in list(self._overlays):
                if overlay.position < self.last:
                    self.behind_since = self.behind_since or time.monotonic()
                    try:
                        overlay.catch_up()
                    except Exception as error:
                        failed.append(error)
                        continue
                else:
                    overlay.settle()
                reached = min(reached, overlay.position)
        self._reached = reached
        if failed:
            raise failed[0]
        self.behind_since = None
