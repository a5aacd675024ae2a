"""A candidate beside production. As a canary it answers a share of the shoppers; in the shadow it is asked what they
asked, unseen, after they were answered. Whatever becomes of it, production answers.

It is watched: past the bounds of errors, or of how far it ranks otherwise, it is taken out. That measures errors and
drift; whether shoppers like it better only their clicks can tell.
"""

import hashlib
import hmac
import logging
import queue
import random
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np

from service.errors import Busy, VitrineError
from service.recommender.agreement import Comparison
from service.recommender.query import Query
from service.recommender.recommendation import Recommendation
from service.recommender.release import resolve
from service.serving.loaded_release import Serving
from service.serving.shadow_worker import ShadowProcess, Start

SHADOW, CANARY = MODES = ("shadow", "canary")
LOADING, RUNNING, STOPPED = "loading", "running", "stopped"
WAITING = 32  # queries that may wait for the shadow; more are left out
LARGEST = 2 * 2**20  # bytes of a photo that may wait with them
WINDOW = 500  # latest queries that the bounds look at
RESTARTS = 3  # of a shadow process that ended

Answer = TypeVar("Answer")
# a query, the vector of its picture, and of the answer: the items, and which of them the picture shows
Waiting = tuple[Query, np.ndarray | None, list[str], dict[str, Any] | None]
logger = logging.getLogger("vitrine")


@dataclass(frozen=True, slots=True)
class Bounds:
    """Past which a candidate is taken out. errors: largest share of queries that it fails; overlap: least share of
    production's first ten items, on average; fewest: queries before either counts."""

    errors: float = 0.02
    overlap: float = 0.1
    fewest: int = 100


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be tried, how, and on what share of the shoppers or the queries. key: of the hash that draws them."""

    path: Path  # of a release's folder, or a file that points to one
    mode: str
    share: float
    key: str
    bounds: Bounds


class Told(Protocol):
    """Who counts what happens. release: the candidate's number."""

    def trial_is(self, release: str, mode: str, state: str) -> None:
        """The candidate is in this state from now on."""

    def canary_answered(self, failed: bool) -> None:
        """The candidate answered a shopper, or failed, and production answered."""

    def shadow_was(self, outcome: str, comparison: Comparison | None) -> None:
        """outcome: answered, failed, or left_out, where too many waited."""


@dataclass
class _Window:
    """The latest outcomes."""

    failed: deque[bool] = field(default_factory=lambda: deque(maxlen=WINDOW))
    overlaps: deque[float] = field(default_factory=lambda: deque(maxlen=WINDOW))

    def beyond(self, bounds: Bounds) -> str:
        """Which bound is passed, in words; empty where none is."""
        errors = sum(self.failed) / max(1, len(self.failed))
        if len(self.failed) >= bounds.fewest and errors > bounds.errors:
            return (
                f"{100 * errors:.1f} % of its last {len(self.failed)} queries failed, at most {bounds.errors:.1%} may"
            )
        overlap = sum(self.overlaps) / max(1, len(self.overlaps))
        if len(self.overlaps) >= bounds.fewest and overlap < bounds.overlap:
            return (
                f"it shows {overlap:.1%} of production's items over its last {len(self.overlaps)} queries, at least "
                f"{bounds.overlap:.1%} are asked"
            )
        return ""


class Trial:
    """One candidate, from the start of the service to its end."""

    def __init__(self, plan: Plan | None, open_serving: Callable[[Path], Serving], told: Told) -> None:
        """plan: None for no candidate; open_serving: for a canary, which answers in this process."""
        self._plan, self._open, self._told = plan, open_serving, told
        self._number = "" if plan is None else plan.path.name
        self._state, self._why = LOADING, ""
        self._production: Serving | None = None
        self._canary: Serving | None = None
        self._window, self._changing = _Window(), threading.Lock()
        self._asked: queue.Queue[Waiting | None] = queue.Queue(WAITING)
        self._draw = random.Random(0)
        self._shadow: ShadowProcess | None = None
        self._began = False

    def beside(self, production: Serving) -> None:
        """Run beside this release from now on; called again when another one takes over."""
        self._production = production
        if self._plan is None:
            return
        try:
            folder = resolve(self._plan.path)
        except (VitrineError, OSError) as error:
            self._stop(str(error))
            return
        if production.recommender.release.path.resolve() == folder.resolve():
            self._stop(f"release {production.number} is in production itself")
            return
        if self._plan.mode == SHADOW:
            production.recommender.listener = self._listen
        if not self._began:
            self._began = True
            self._set(LOADING)
            run = self._run_shadow if self._plan.mode == SHADOW else self._open_canary
            threading.Thread(target=run, name="candidate", daemon=True).start()
        elif self._shadow is not None:
            self._shadow.close()  # its thread starts one that compares with the new release

    def described(self) -> dict[str, Any] | None:
        """For GET /release."""
        if self._plan is None:
            return None
        return {
            "release": self._number, "mode": self._plan.mode, "share": self._plan.share, "state": self._state,
            "why": self._why,
        }  # fmt: skip

    async def answer(
        self, production: Serving, user_id: str | None, ask: Callable[[Serving], Awaitable[Answer]]
    ) -> Answer:
        """What the shopper's release answers; production's answer where the candidate fails."""
        canary = self._canary
        if canary is None or self._plan is None or not is_drawn(user_id, self._number, self._plan):
            return await ask(production)
        try:
            answer = await ask(canary)
        except Busy:  # no fault of the release
            raise
        except Exception as error:
            # who asks what cannot be answered fails here too, and then the fault is not the candidate's
            answer = await ask(production)
            logger.warning("candidate %s failed, production answered: %s", self._number, type(error).__name__)
            self._count(failed=True)
            self._told.canary_answered(failed=True)
            return answer
        self._count(failed=False)
        self._told.canary_answered(failed=False)
        return answer

    def close(self) -> None:
        """End what belongs to it."""
        self._stop("the service is ending", quiet=True)

    def _open_canary(self) -> None:
        assert self._plan is not None
        try:
            opened = self._open(resolve(self._plan.path))
        except Exception as error:
            self._stop(f"it cannot be served: {error}")
            return
        with self._changing:
            if self._state == LOADING:
                self._number, self._canary = opened.number, opened
                self._set(RUNNING)

    def _listen(
        self, queries: Sequence[Query], vectors: Sequence[np.ndarray | None], answers: Sequence[Recommendation]
    ) -> None:
        """In a lane, after each batch: put what is drawn where the shadow's thread finds it, and go on."""
        if self._state != RUNNING or self._plan is None:
            return
        for query, vector, answer in zip(queries, vectors, answers, strict=True):
            if self._plan.share < 1 and self._draw.random() >= self._plan.share:
                continue
            if self._shadow is not None and self._shadow.same_encoder and vector is not None:
                query = replace(query, image=None)  # its vector is all that is needed
            try:
                if query.image is not None and len(query.image) > LARGEST:
                    raise queue.Full
                self._asked.put_nowait((query, vector, [item.item_id for item in answer.items], answer.match))
            except queue.Full:
                self._told.shadow_was("left_out", None)

    def _run_shadow(self) -> None:
        starts = 0
        while self._state != STOPPED and starts <= RESTARTS:
            compared_with = self._production
            assert compared_with is not None
            try:
                self._shadow = ShadowProcess(self._start(compared_with))
                self._number = self._shadow.number
                with self._changing:
                    if self._state == LOADING:
                        self._set(RUNNING)
                self._ask_until_it_ends(self._shadow)
            except (EOFError, OSError, ValueError) as error:
                if self._production is compared_with and self._state != STOPPED:  # nobody ended it
                    starts += 1
                    logger.warning("candidate %s: %s", self._number, error)
                    self._count(failed=True)
            except Exception as error:
                self._stop(f"it cannot be served: {error}")
            finally:
                if self._shadow is not None:
                    self._shadow.close()
        self._stop("its process ended again and again")

    def _ask_until_it_ends(self, shadow: ShadowProcess) -> None:
        while (asked := self._asked.get()) is not None:
            try:
                comparison = shadow.compare(*asked)
            except RuntimeError as error:
                logger.warning("candidate %s failed: %s", self._number, error)
                self._told.shadow_was("failed", None)
                self._count(failed=True)
                continue
            self._told.shadow_was("answered", comparison)
            self._count(failed=False, overlap=comparison.overlap)

    def _start(self, production: Serving) -> Start:
        assert self._plan is not None
        candidate = str(resolve(self._plan.path).resolve())
        other = str(production.recommender.release.path.resolve())
        engine, _, precision = production.encoder.partition(" ")
        return Start(candidate, other, engine, precision, self._plan.key)

    def _count(self, *, failed: bool, overlap: float | None = None) -> None:
        assert self._plan is not None
        with self._changing:
            self._window.failed.append(failed)
            if overlap is not None:
                self._window.overlaps.append(overlap)
            beyond = self._window.beyond(self._plan.bounds)
        if beyond:
            self._stop(beyond)

    def _stop(self, why: str, *, quiet: bool = False) -> None:
        with self._changing:
            if self._state == STOPPED or self._plan is None:
                return
            self._canary, self._why = None, why
            self._set(STOPPED)
        if not quiet:
            logger.error("candidate %s is taken out: %s", self._number, why)
        if self._production is not None:
            self._production.recommender.listener = None
        if self._shadow is not None:
            self._shadow.close()
        with suppress(queue.Full):
            self._asked.put_nowait(None)  # wakes its thread

    def _set(self, state: str) -> None:
        assert self._plan is not None
        self._state = state
        self._told.trial_is(self._number, self._plan.mode, state)
        if state == RUNNING:
            asked = f"answers {self._plan.share:.0%} of the shoppers"
            if self._plan.mode == SHADOW:
                asked = f"is asked {self._plan.share:.0%} of the queries in the shadow, and answers none"
            logger.info("candidate %s %s", self._number, asked)


def is_drawn(user_id: str | None, release: str, plan: Plan) -> bool:
    """Whether the canary answers this shopper: the same in every process that has the same key, and whoever is drawn
    for a share is drawn for every larger one. Another candidate draws others."""
    if user_id is None:
        return False
    drawn = hmac.digest(plan.key.encode(), f"canary {release} {user_id}".encode(), hashlib.sha256)
    return int.from_bytes(drawn[:8]) < plan.share * 2**64
