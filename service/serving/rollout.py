"""Which release answers whom: production, and what is tried beside it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from service.recommender.pipeline import Listener
from service.serving.canary import Canary
from service.serving.candidate import SHADOW, CandidateMetrics, Plan
from service.serving.hot_swap import HotSwap
from service.serving.loaded_release import LoadedRelease
from service.serving.shadow import Shadow

OpenRelease = Callable[[Path, Listener | None], LoadedRelease]


@dataclass(frozen=True, slots=True)
class Choice:
    """The release that answers, and production as it was then. canary: what the release belongs to, if to one."""

    release: LoadedRelease
    production: LoadedRelease
    canary: Canary | None = None


class Rollout:
    """Production, a canary, or a shadow."""

    def __init__(
        self,
        path: Path,
        open_release: OpenRelease,
        *,
        plan: Plan | None,
        metrics: CandidateMetrics,
        switch_failed: Callable[[], None] = lambda: None,
    ) -> None:
        """path: of production's folder, or a file that points to one, which is watched; open_release: opens a folder;
        its second argument is called with what that release was asked and answered; plan: None for no candidate;
        switch_failed: called when another release could not take over. Raises what `open_release` raises."""
        shadow = Shadow(plan, metrics) if plan is not None and plan.mode == SHADOW else None
        self._canary: Canary | None = None
        if plan is not None and shadow is None:
            self._canary = Canary(plan, metrics, lambda folder: open_release(folder, None))
        self._candidate = shadow or self._canary
        offer = None if shadow is None else shadow.offer
        self._hot_swap = HotSwap(path, lambda folder: open_release(folder, offer), failed=switch_failed)

    def watch(self, switched: Callable[[LoadedRelease], None]) -> None:
        """Follow production from now on. switched: called now, and whenever another release has taken over."""

        def follow(production: LoadedRelease) -> None:
            switched(production)
            if self._candidate is not None:
                self._candidate.run_beside(production)

        self._hot_swap.watch(follow)

    @property
    def production(self) -> LoadedRelease:
        """The release in production."""
        return self._hot_swap.current

    def switch(self, number: str) -> LoadedRelease:
        """Have the release of this number be production. Raises as `HotSwap.switch`."""
        return self._hot_swap.switch(number)

    def choose(self, user_id: str | None) -> Choice:
        """The release that answers this user. user_id: None for an anonymous request, which production answers."""
        production = self.production
        release = None if self._canary is None else self._canary.release_for(user_id)
        return Choice(production, production) if release is None else Choice(release, production, self._canary)

    def describe_candidate(self) -> dict[str, Any] | None:
        """For GET /release; None where nothing is tried."""
        return None if self._candidate is None else self._candidate.describe()

    def close(self) -> None:
        """Watch no longer, and end the candidate."""
        self._hot_swap.close()
        if self._candidate is not None:
            self._candidate.close()
