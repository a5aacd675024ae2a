"""A query -> the answer of the release that is to give it."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from service import context
from service.errors import Busy
from service.recommender.query import Query, SimilarQuery
from service.recommender.recommendation import Embedding, Recommendation
from service.serving.batcher import MicroBatcher
from service.serving.loaded_release import LoadedRelease
from service.serving.rollout import Rollout

Asked = TypeVar("Asked")
Answer = TypeVar("Answer")
Gone = Callable[[], Awaitable[Any]] | None
Work = Callable[[LoadedRelease, Sequence[Asked]], Sequence[Answer]]


class Answering:
    """The way of every query: a release is chosen, and the batcher has it answer.

    deadline: seconds within which an answer must be there; gone, waited: as in `MicroBatcher.submit`, which says what
    is raised."""

    def __init__(self, rollout: Rollout, batcher: MicroBatcher) -> None:
        self.batcher = batcher
        self._rollout = rollout

    async def recommend(
        self,
        query: Query,
        *,
        deadline: float,
        gone: Gone = None,
        waited: Callable[[float], None] = lambda seconds: None,
    ) -> Recommendation:
        """Items for a user, a photo, or both."""
        if (request := context.current()) is not None:
            request.user_id = query.user_id
        how = {"deadline": deadline, "gone": gone, "waited": waited}
        release = self._rollout.choose(query.user_id)
        try:
            answer = await self._submit(release, release.recommend, query, **how)
        except Busy:  # no fault of the release
            raise
        except Exception as error:
            production = self._rollout.production
            if release is production:
                raise
            # who asks what cannot be answered fails here too, and then the fault is not the canary's
            answer = await self._submit(production, production.recommend, query, **how)
            self._rollout.failed(error)
            return answer
        self._rollout.answered(release)
        return answer

    async def similar(self, query: SimilarQuery, *, deadline: float, gone: Gone = None) -> Recommendation:
        """Items that look like a photo or an item."""
        release = self._rollout.production
        return await self._submit(release, release.similar, query, deadline=deadline, gone=gone)

    async def embed(self, query: Query, *, deadline: float, gone: Gone = None) -> Embedding:
        """The vector of a photo."""
        release = self._rollout.production
        return await self._submit(release, release.embed, query, deadline=deadline, gone=gone)

    async def _submit(
        self, release: LoadedRelease, work: Callable[[Sequence[Asked]], Sequence[Answer]], query: Asked, **how: Any
    ) -> Answer:
        if (request := context.current()) is not None:
            request.release = release.number
        answer = await self.batcher.submit(work, query, **how)
        if request is not None:
            request.tier = getattr(answer, "tier", "")
        return answer
