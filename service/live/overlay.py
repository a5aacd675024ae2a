"""What changed since a release, applied to it in memory: each process does so for each release that it has open."""

import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from service.errors import BadQuery
from service.live.picture_reader import LookedAt, PictureReader
from service.live.requests.attributes import fits, kind_of
from service.live.store import Changes, Store, StoredEvent
from service.live.unit_of_work import ItemState
from service.recommender.changes.growing import Growing
from service.recommender.changes.trend import ContinuedTrend
from service.recommender.factors import DISMISS
from service.recommender.index.in_catalogue import NEAREST
from service.recommender.pipeline import Recommender
from service.recommender.query import Event
from service.recommender.scoring.terms import PRICE

PART = 200  # items that are changed together; who answers waits for no more of them
RATED = "rated"
TREND_EVERY = 5.0  # seconds between changes of the trend of every item

logger = logging.getLogger("vitrine")


@dataclass(frozen=True, slots=True)
class _Change:
    """The state of an item, and what its pictures show, where it has others than in the release."""

    state: ItemState
    pictures: Sequence[LookedAt] | None


class Overlay:
    """The changes of one open release. One thread at a time changes it."""

    def __init__(self, recommender: Recommender, store: Store) -> None:
        self._recommender, self._store = recommender, store
        release, sources = recommender.release, recommender.sources
        self._items, self._index, self._ranker = release.items, release.index, release.ranker
        self._popularity = Growing(sources.popularity)
        self._most = math.log1p(float(release.items.popularity.max(initial=0)))
        self._prices = None if sources.log_price is None else Growing(sources.log_price)
        self._pictures = None if release.index is None else PictureReader(recommender, store)
        self._first_pictures: dict[str, str] = {}
        facts = (release.manifest.ranker or {}).get("trend")
        self._trend = ContinuedTrend.open(release.path / "ranker", facts)
        self._trend_moved, self._trend_waits = 0.0, False
        self.position = contained(release.manifest.data, store.id)  # what is applied

    @property
    def size(self) -> int:
        """How many items are not as the release has them."""
        return self._items.changed

    @property
    def pictures(self) -> int:
        """How many pictures are searched beside the release's."""
        return 0 if self._index is None else self._index.live

    @property
    def kinds(self) -> Mapping[str, str]:
        """Column -> number | boolean | category | tags, also of those that came since."""
        return self._items.kinds

    def holds(self, item_id: str) -> bool:
        """Whether an item is there."""
        return self._items.find(item_id) is not None

    def first_picture(self, item_id: str) -> str | None:
        """The digest of an item's first picture, where it has others than in the release."""
        return self._first_pictures.get(item_id)

    @property
    def reader(self) -> PictureReader:
        """What looks at pictures for this release. Raises BadQuery where it has none."""
        if self._pictures is None:
            raise BadQuery("this release was made from a catalogue without pictures: it cannot look", field="image")
        return self._pictures

    def catch_up(self) -> None:
        """Apply all that the store holds. Raises StoreAway, EncoderAway: what was not applied is, the next time."""
        while (changes := self._store.changes(self.position)).upto > self.position:
            self.apply(changes)
        self.settle()

    def settle(self) -> None:
        """Bring the trend of every item up to date, if some seconds have passed since it was: each touch of another
        moves it a little."""
        if self._trend_waits and time.monotonic() > self._trend_moved + TREND_EVERY:
            self._move_trend(slice(None))
            self._trend_moved, self._trend_waits = time.monotonic(), False

    def apply(self, changes: Changes) -> None:
        """Apply what comes after `position`."""
        for start in range(0, len(changes.items), PART):
            states = changes.items[start : start + PART]
            looked = {} if self._pictures is None else self._pictures.look(states)
            self._change([_Change(each, _of(each, looked)) for each in states])
        since = self._recommender.users.since
        for mark in changes.erased:
            since.erase(mark)
        for session_key, user_key in changes.links:
            since.join(session_key, user_key)
        self._happen(changes.events)
        self.position = changes.upto

    def _change(self, changes: Sequence[_Change]) -> None:
        with self._recommender.changing.writing():
            rows = [row for change in changes if (row := self._change_item(change)) is not None]
            sources = self._recommender.sources
            sources.popularity = self._popularity.array
            sources.kinds = self._items.categories()
            if self._prices is not None:
                sources.log_price = self._prices.array
        self._measure_density(rows)

    def _change_item(self, change: _Change) -> int | None:
        """Returns the row of an item that has other pictures now."""
        state, items = change.state, self._items
        row = items.find(state.item_id)
        if state.withdrawn:
            self._first_pictures.pop(state.item_id, None)
            if row is not None:
                items.withdraw(row)
                self._show(row, ())
            return None
        if row is None and not state.complete:  # of an item that this release does not hold
            return None
        before = {} if state.complete or row is None or row >= items.sealed else items.sealed_values(row)
        values = self._typed({**before, **state.attributes})
        pictured = bool(change.pictures) if change.pictures is not None else self._has_own_picture(row)
        row = items.put(state.item_id, values, pictured=pictured)
        self._first_pictures.pop(state.item_id, None)
        if state.pictures and change.pictures:
            self._first_pictures[state.item_id] = state.pictures[0]
        self._extend(row, values)
        if change.pictures is not None:
            self._show(row, change.pictures)
        elif row < items.sealed:
            self._restore(row)
        self._place(row, values)
        return row if change.pictures else None

    def _has_own_picture(self, row: int | None) -> bool:
        """Whether the release itself has a picture of the item."""
        return row is not None and row < self._items.sealed and bool(self._items.sealed_pictured[row])

    def _extend(self, row: int, values: Mapping[str, Any]) -> None:
        """What the terms are computed from, of an item that came or has other attributes."""
        self._popularity.extend_to(row + 1, 0)
        if self._trend is not None:
            self._trend.extend_to(row + 1)
        if self._prices is not None:
            self._prices.extend_to(row + 1, np.nan)
            price = values.get(PRICE)
            self._prices.array[row] = math.log(price) if price is not None and price > 0 else np.nan
        if (familiarity := self._recommender.release.familiarity) is not None:
            familiarity.extend_to(row + 1)
        if self._index is not None and row >= self._index.shape[0]:
            self._index.put(row, np.empty((0, self._index.sealed_dim), np.float32))

    def _place(self, row: int, values: Mapping[str, Any]) -> None:
        """Give an item that came since the factor that its picture and attributes let expect."""
        if self._ranker is None or row < self._items.sealed:
            return
        vector = None
        if self._index is not None and self._index.pictured[row]:
            vector = self._index.vectors(np.array([row]))[0]
        prior = self._recommender.release.item_prior
        factor = np.zeros(self._ranker.item_factors.shape[1], np.float32)
        self._ranker.put(row, factor if prior is None else prior.factor(values, vector))

    def _show(self, row: int, pictures: Sequence[LookedAt]) -> None:
        """Have an item's pictures be these."""
        release, vectors = self._recommender.release, np.array([each.vector for each in pictures], np.float32)
        if self._index is not None:
            self._index.put(row, vectors.reshape(-1, self._index.sealed_dim))
        if release.recogniser is not None:
            release.recogniser.put(row, [each.landmarks for each in pictures if each.landmarks is not None])

    def _restore(self, row: int) -> None:
        """Give an item of the release its own pictures back, where it had lost them."""
        release = self._recommender.release
        if self._index is not None and self._index.is_replaced(row):
            self._index.restore(row)
            if release.recogniser is not None:
                release.recogniser.restore(row)

    def _measure_density(self, rows: Sequence[int]) -> None:
        """What lies around items with other pictures, as calibration saw it around those of the release."""
        familiarity = self._recommender.release.familiarity
        if familiarity is None or self._index is None or not rows:
            return
        with self._recommender.changing.reading():
            found, cosines = self._index.search(self._index.vectors_or_zero(np.array(rows)), k=NEAREST + 1)
        for row, near, line in zip(rows, found, cosines, strict=True):
            familiarity.put(row, line[(near != row) & (near >= 0)][:NEAREST])

    def _typed(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The values that are of the kind of their column; one that no item had before becomes a column."""
        typed = {}
        for name, value in values.items():
            if value is None:
                continue
            if name not in ("title", *self._items.kinds):
                self._items.add_column(name, kind_of(value))
            if fits(value, self._items.kinds.get(name, "text")):
                typed[name] = float(value) if self._items.kinds.get(name) == "number" else value
            else:
                logger.warning("an item's %s is not as this release has it, and is left out", name)
        return {"title": "", **typed}

    def _happen(self, events: Sequence[StoredEvent]) -> None:
        since, sources = self._recommender.users.since, self._recommender.sources
        touched: set[int] = set()
        for each in events:
            event = Event(each.item_id, meaning(each), each.timestamp)
            first = since.add(each.user_key, event)
            row = self._items.find(each.item_id)
            if row is None or event.event == DISMISS:
                continue
            if self._trend is not None:
                self._trend.touch(row, each.timestamp)
                touched.add(row)
            if first and not self._was_touched(each.user_key, row):
                sources.popularity[row] = math.log1p(self._items.touch(row)) / max(self._most, 1.0)
        if touched:
            self._move_trend(np.array(sorted(touched)))
            self._trend_waits = True

    def _move_trend(self, rows: np.ndarray | slice) -> None:
        assert self._trend is not None
        assert self._ranker is not None
        self._ranker.trend[rows] = self._trend.values(rows)

    def _was_touched(self, user_key: str, row: int) -> bool:
        """Whether the user had touched the item when the release was trained."""
        if self._ranker is None or (user := self._ranker.user_row(user_key)) is None:
            return False
        return bool((self._ranker.user(user).seen == row).any())


def contained(data: Mapping[str, Any], store: str) -> int:
    """The number up to which a release holds the changes of a store. data: of its manifest; store: the store's id."""
    if data.get("store") != store:
        return 0
    return int(data.get("sequence", 0))


def meaning(event: StoredEvent) -> str:
    """What an event says of liking: as training reads a value below zero, or a rating of none, it is a dismissal."""
    if event.value is not None and (event.value < 0 or (event.event == RATED and event.value == 0)):
        return DISMISS
    return "view" if event.event == RATED else event.event


def _of(state: ItemState, looked: Mapping[str, LookedAt]) -> Sequence[LookedAt] | None:
    if state.pictures is None:
        return None
    return [looked[digest] for digest in state.pictures if digest in looked]
