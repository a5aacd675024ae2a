"""A shadow: a candidate that is asked what production was asked, unseen, after production has answered."""

import logging
import queue
import random
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np

from service.recommender.query import Query
from service.recommender.recommendation import Recommendation
from service.recommender.release import resolve
from service.serving.candidate import LOADING, RUNNING, STOPPED, Candidate, CandidateMetrics, Plan
from service.serving.loaded_release import LoadedRelease
from service.serving.shadow_worker import ShadowProcess, Start

WAITING = 32  # queries that may wait for the shadow; more are left out
LARGEST = 2 * 2**20  # bytes of a photo that may wait with them
RESTARTS = 3  # of a worker that ended

# a query, the vector of its picture, and of the answer: the items, and which of them the picture shows
Waiting = tuple[Query, np.ndarray | None, list[str], dict[str, Any] | None]

logger = logging.getLogger("vitrine")


class Shadow(Candidate):
    """Asked in a worker process of its own; a thread here hands queries over and counts what comes back."""

    def __init__(self, plan: Plan, metrics: CandidateMetrics) -> None:
        super().__init__(plan, metrics)
        self._production: LoadedRelease | None = None
        self._worker: ShadowProcess | None = None
        self._waiting: queue.Queue[Waiting | None] = queue.Queue(WAITING)
        self._draw = random.Random(0)

    def offer(
        self, queries: Sequence[Query], vectors: Sequence[np.ndarray | None], answers: Sequence[Recommendation]
    ) -> None:
        """Take what production was asked and answered; called in a lane after each batch, never waits.

        vectors: of the queries' pictures, (dim,) each, None without one."""
        if self.state != RUNNING:
            return
        for query, vector, answer in zip(queries, vectors, answers, strict=True):
            if self.plan.share < 1 and self._draw.random() >= self.plan.share:
                continue
            if self._worker is not None and self._worker.same_encoder and vector is not None:
                query = replace(query, image=None)  # its vector is all that is needed
            try:
                if query.image is not None and len(query.image) > LARGEST:
                    raise queue.Full
                self._waiting.put_nowait((query, vector, [item.item_id for item in answer.items], answer.match))
            except queue.Full:
                self.metrics.shadow_was("left_out", None)

    def _begin(self, production: LoadedRelease, *, again: bool) -> None:
        self._production = production
        if again and self._worker is not None:
            self._worker.close()  # its thread starts one that compares with the new release

    def _run(self) -> None:
        starts = 0
        while self.state != STOPPED and starts <= RESTARTS:
            compared_with = self._production
            assert compared_with is not None
            try:
                self._worker = ShadowProcess(self._start(compared_with))
                self.number = self._worker.number
                with self._changing:
                    if self.state == LOADING:
                        self._set(RUNNING)
                self._ask_until_it_ends(self._worker)
            except (EOFError, OSError, ValueError) as error:
                if self._production is compared_with and self.state != STOPPED:  # nobody ended it
                    starts += 1
                    logger.warning("candidate %s: %s", self.number, error)
                    self.count(failed=True)
            except Exception as error:
                self.stop(f"it cannot be served: {error}")
            finally:
                if self._worker is not None:
                    self._worker.close()
        self.stop("its process ended again and again")

    def _ask_until_it_ends(self, worker: ShadowProcess) -> None:
        while (waiting := self._waiting.get()) is not None:
            try:
                comparison = worker.compare(*waiting)
            except RuntimeError as error:
                logger.warning("candidate %s failed: %s", self.number, error)
                self.metrics.shadow_was("failed", None)
                self.count(failed=True)
                continue
            self.metrics.shadow_was("answered", comparison)
            self.count(failed=False, overlap=comparison.overlap)

    def _start(self, production: LoadedRelease) -> Start:
        candidate = str(resolve(self.plan.path).resolve())
        other = str(production.recommender.release.path.resolve())
        engine, _, precision = production.encoder.partition(" ")
        return Start(candidate, other, engine, precision, self.plan.key, self.plan.store)

    def _end(self) -> None:
        if self._worker is not None:
            self._worker.close()
        with suppress(queue.Full):
            self._waiting.put_nowait(None)  # wakes its thread

    def _what_it_does(self) -> str:
        return f"is asked {self.plan.share:.0%} of the queries in the shadow, and answers none"
