"""A release that is tried beside production: what is planned, the state of the trial, and what stops it.

Whatever becomes of a candidate, production answers. Past the guardrails of errors, or of how far it ranks otherwise, it
is stopped. That measures errors and drift; whether users like it better only their clicks can tell.
"""

import logging
import threading
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from service.errors import VitrineError
from service.recommender.agreement import Comparison
from service.recommender.release import resolve
from service.serving.guardrails import Bounds, Guardrails
from service.serving.loaded_release import LoadedRelease

SHADOW = "shadow"  # the mode of a plan; any other is a canary's
LOADING, RUNNING, STOPPED = "loading", "running", "stopped"

logger = logging.getLogger("vitrine")


@dataclass(frozen=True, slots=True)
class Plan:
    """What is tried, how, and on which share of the users (canary) or of the queries (shadow).

    path: of a release's folder, or a file that points to one; key: of the hash that draws users; store: of changes."""

    path: Path
    mode: str
    share: float
    key: str
    bounds: Bounds
    store: str | None = None


class CandidateMetrics(Protocol):
    """Counts what happens to a candidate. release: its number."""

    def candidate_is(self, release: str, mode: str, state: str) -> None:
        """The candidate is in this state from now on."""

    def canary_answered(self, failed: bool) -> None:
        """The candidate answered a user; or failed, and production answered."""

    def shadow_was(self, outcome: str, comparison: Comparison | None) -> None:
        """outcome: answered, failed, or left_out, where too many waited."""


class Candidate(ABC):
    """One candidate, from the start of the service to its end. Canary and shadow say how it is tried."""

    def __init__(self, plan: Plan, metrics: CandidateMetrics) -> None:
        self.plan, self.metrics = plan, metrics
        self.number, self.state, self.reason = plan.path.name, LOADING, ""
        self._guardrails, self._changing = Guardrails(plan.bounds), threading.Lock()
        self._began = False

    def run_beside(self, production: LoadedRelease) -> None:
        """Run beside this release from now on; called again when another one takes over."""
        try:
            folder = resolve(self.plan.path)
        except (VitrineError, OSError) as error:
            self.stop(str(error))
            return
        if production.recommender.release.path.resolve() == folder.resolve():
            self.stop(f"release {production.number} is in production itself")
            return
        self._begin(production, again=self._began)
        if not self._began:
            self._began = True
            self._set(LOADING)
            threading.Thread(target=self._run, name="candidate", daemon=True).start()

    def describe(self) -> dict[str, Any]:
        """For GET /release."""
        return {
            "release": self.number,
            "mode": self.plan.mode,
            "share": self.plan.share,
            "state": self.state,
            "why": self.reason,
        }

    def count(self, *, failed: bool, overlap: float | None = None) -> None:
        """Add one outcome; stops the candidate where it passes a guardrail."""
        with self._changing:
            self._guardrails.count(failed=failed, overlap=overlap)
            breach = self._guardrails.breach()
        if breach:
            self.stop(breach)

    def stop(self, reason: str, *, quiet: bool = False) -> None:
        """Try it no longer."""
        with self._changing:
            if self.state == STOPPED:
                return
            self.reason = reason
            self._set(STOPPED)
        if not quiet:
            logger.error("candidate %s is taken out: %s", self.number, reason)
        self._end()

    def close(self) -> None:
        """End what belongs to it, with the service."""
        self.stop("the service is ending", quiet=True)

    @abstractmethod
    def _begin(self, production: LoadedRelease, *, again: bool) -> None:
        """Production is this release. again: the candidate runs already, beside another one."""

    @abstractmethod
    def _run(self) -> None:
        """In a thread of its own: make the candidate ready, and whatever else takes long."""

    @abstractmethod
    def _end(self) -> None:
        """Let go of what it holds."""

    def _set(self, state: str) -> None:
        self.state = state
        self.metrics.candidate_is(self.number, self.plan.mode, state)
        if state == RUNNING:
            logger.info("candidate %s %s", self.number, self._what_it_does())

    @abstractmethod
    def _what_it_does(self) -> str:
        """For the log, after its number."""
