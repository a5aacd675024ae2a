"""A canary: a candidate that answers a share of the users. Production answers where it fails."""

import hashlib
import hmac
import logging
from collections.abc import Callable
from pathlib import Path

from service.recommender.release import resolve
from service.serving.candidate import LOADING, RUNNING, Candidate, CandidateMetrics, Plan
from service.serving.loaded_release import LoadedRelease

logger = logging.getLogger("vitrine")


class Canary(Candidate):
    """Open in this process, beside production."""

    def __init__(self, plan: Plan, metrics: CandidateMetrics, open_release: Callable[[Path], LoadedRelease]) -> None:
        super().__init__(plan, metrics)
        self._open = open_release
        self._release: LoadedRelease | None = None

    def release_for(self, user_id: str | None) -> LoadedRelease | None:
        """The canary's release where it is the one that answers this user, else None."""
        release = self._release
        return release if release is not None and is_drawn(user_id, self.number, self.plan) else None

    def answered(self) -> None:
        """It answered a user."""
        self.count(failed=False)
        self.metrics.canary_answered(failed=False)

    def failed(self, error: Exception) -> None:
        """It failed where production did not."""
        logger.warning("candidate %s failed, production answered: %s", self.number, type(error).__name__)
        self.count(failed=True)
        self.metrics.canary_answered(failed=True)

    def _begin(self, production: LoadedRelease, *, again: bool) -> None:
        """A canary stands beside whichever release is in production."""

    def _run(self) -> None:
        try:
            opened = self._open(resolve(self.plan.path))
        except Exception as error:
            self.stop(f"it cannot be served: {error}")
            return
        with self._changing:
            if self.state == LOADING:
                self.number, self._release = opened.number, opened
                self._set(RUNNING)

    def _end(self) -> None:
        self._release = None

    def _what_it_does(self) -> str:
        return f"answers {self.plan.share:.0%} of the users"


def is_drawn(user_id: str | None, release: str, plan: Plan) -> bool:
    """Whether the canary answers this user: the same in every process that has the same key, and whoever is drawn for a
    share is drawn for every larger one. Another candidate draws others."""
    if user_id is None:
        return False
    drawn = hmac.digest(plan.key.encode(), f"canary {release} {user_id}".encode(), hashlib.sha256)
    return int.from_bytes(drawn[:8]) < plan.share * 2**64
