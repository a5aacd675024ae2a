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
        choice = self._rollout.choose(query.user_id)
        try:
            answer = await self._submit(choice.release, choice.release.recommend, query, deadline, gone, waited)
        except Busy:  # no fault of the release
            raise
        except Exception as error:
            if choice.canary is None:
                raise
            # who asks what cannot be answered fails here too, and then the fault is not the canary's
            production = choice.production
            answer = await self._submit(production, production.recommend, query, deadline, gone, waited)
            choice.canary.failed(error)
            return answer
        if choice.canary is not None:
            choice.canary.answered()
        return answer

    async def similar(self, query: SimilarQuery, *, deadline: float, gone: Gone = None) -> Recommendation:
        """Items that look like a photo or an item."""
        release = self._rollout.production
        return await self._submit(release, release.similar, query, deadline, gone)

    async def embed(self, query: Query, *, deadline: float, gone: Gone = None) -> Embedding:
        """The vector of a photo."""
        release = self._rollout.production
        return await self._submit(release, release.embed, query, deadline, gone)

    async def _submit(
        self,
        release: LoadedRelease,
        work: Callable[[Sequence[Asked]], Sequence[Answer]],
        query: Asked,
        deadline: float,
        gone: Gone,
        waited: Callable[[float], None] = lambda seconds: None,
    ) -> Answer:
        if (request := context.current()) is not None:
            request.release = release.number
        return await self.batcher.submit(work, query, deadline=deadline, gone=gone, waited=waited)
