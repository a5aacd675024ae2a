"""A release, asked by a catalogue that knows users by their keys alone."""

import copy

from service.recommender.pipeline import Recommender
from service.recommender.query import Query
from service.recommender.user import Users
from training.data.catalogue import Catalogue


class UsersByKey(Users):
    """Users whose ids are their keys. Only data of ours names users so: a request never does."""

    def _keys(self, query: Query) -> list[str]:
        return [] if query.user_id is None else [query.user_id]


def for_catalogue(recommender: Recommender, catalogue: Catalogue) -> Recommender:
    """The same, which knows users by what the catalogue calls them. Raises CatalogueError where its keys are others."""
    catalogue.require_key(recommender.users.key)
    if not catalogue.keyed:
        return recommender
    asked = copy.copy(recommender)
    asked.users = UsersByKey(recommender.release, recommender.users.key)
    return asked
