"""A release that changes of a store are applied to."""

from pathlib import Path
from typing import Any

from service.live.operations import (
    Picture,
    PutItem,
)
from service.live.overlay import Overlay
from service.live.store import Store
from service.live.unit_of_work import Operation
from service.recommender.pipeline import Recommender
from service.recommender.query import Query, SimilarQuery
from service.recommender.recommendation import Recommendation
from service.recommender.release import Release

USERS = [f"{number:05d}" for number in range(0, 200, 10)]


class Shop:
    """A release, a store beside it, and what follows the store."""

    def __init__(self, release: Path, store: Store, images: Path, encoder: Any) -> None:
        """encoder: of the release, opened already."""
        self._release, self.store, self._images, self._encoder = release, store, images, encoder
        self.recommender, self.overlay = self.open()

    def open(self) -> tuple[Recommender, Overlay]:
        """The release anew, with all that the store holds."""
        recommender = Recommender(Release.open(self._release), encoder=self._encoder)
        overlay = Overlay(recommender, self.store)
        overlay.catch_up()
        return recommender, overlay

    def photo(self, item_id: str) -> bytes:
        """The picture that the catalogue has of an item."""
        return (self._images / f"{item_id}.jpg").read_bytes()

    def look(self, *pictures: bytes) -> list[Picture]:
        """Pictures as the API hands them over."""
        return self.overlay.reader.read([pictures])[0]

    def described(self, item_id: str) -> dict[str, Any]:
        """Title, category and attributes of an item, by name."""
        items = self.recommender.release.items
        found = items.describe(items.row(item_id))
        values = {**found["attributes"], "title": found["title"], "category": found["category"]}
        return {name: value for name, value in values.items() if value is not None}

    def change(self, *operations: Operation) -> list[Any]:
        """Write, and follow."""
        replies = self.store.write(operations)
        assert not [each for each in replies if isinstance(each, Exception)]
        self.overlay.catch_up()
        return replies

    def put(self, item_id: str, attributes: dict[str, Any] | None = None, *pictures: bytes) -> None:
        """As PUT /items/{item_id}."""
        self.change(PutItem(item_id, attributes or {}, self.look(*pictures)))

    def ask(self, recommender: Recommender | None = None, **fields: Any) -> Recommendation:
        """One answer."""
        return (recommender or self.recommender).recommend([Query(**fields)])[0]

    def similar(self, **fields: Any) -> Recommendation:
        """One answer."""
        return self.recommender.similar([SimilarQuery(**fields)])[0]


def ids(answer: Recommendation) -> list[str]:
    return [item.item_id for item in answer.items]
