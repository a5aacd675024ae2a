"""What is known of items and users beside who touched what, as the vectors that the ranker's priors rest on."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from service.recommender.catalogue.features import Features
from service.recommender.index.vector_index import Index
from service.recommender.scoring.terms import PRICE, Sources, log_price
from training.data.catalogue import Catalogue
from training.data.features import learn

TITLE = "title"
FEW = 5  # users; what fewer have in common would tell who they are


@dataclass(frozen=True, slots=True)
class SideInformation:
    """What is known of items and users beside who touched what. items: (items, d) float32 by row of the catalogue;
    users: (profiles, d) by `profiles`, the user ids. Either may be None."""

    items: np.ndarray | None = None
    users: np.ndarray | None = None
    profiles: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Known:
    """What there is beside the interactions. index and views (item rows and vectors of photographs) are None without
    pictures; prices: (items,) or None; categories: (items,) their numbers, 0 where unknown, or None."""

    sides: SideInformation
    index: Index | None = None
    views: tuple[np.ndarray, np.ndarray] | None = None
    prices: np.ndarray | None = None
    categories: np.ndarray | None = None

    @property
    def sources(self) -> Sources:
        """What a photo alone is answered from."""
        items = 0 if self.index is None else self.index.shape[0]
        return Sources(self.index, None, np.zeros(items, np.float32), log_price(self.prices), kinds=self.categories)


def know(
    catalogue: Catalogue,
    index: Index | None,
    views: tuple[np.ndarray, np.ndarray] | None,
    vectors: np.ndarray | None,
    *,
    exclude: str | None,
) -> tuple[Known, dict[str, Any]]:
    """What the ranker learns from beside interactions, and what features.json says of it. exclude: a column that must
    not teach."""
    of_items = item_features(catalogue, exclude={exclude} if exclude else set())
    of_users = user_features(catalogue)
    prices = catalogue.items[PRICE].to_numpy() if catalogue.kinds.get(PRICE) == "number" else None
    described = {"item_features": of_items.to_json(), "user_features": of_users.to_json()}
    found = sides(catalogue, of_items, of_users, vectors)
    return Known(found, index, views, prices, catalogue.category_numbers()), described


def item_features(catalogue: Catalogue, *, exclude: set[str]) -> Features:
    """Learn from category, attributes and titles of all items; `exclude` names columns that must not teach."""
    kinds = {name: kind for name, kind in catalogue.kinds.items() if name not in exclude}
    table: dict[str, Any] = {name: catalogue.items[name].tolist() for name in (*kinds, TITLE)}
    return learn(table, {**kinds, TITLE: "text"})


def user_features(catalogue: Catalogue) -> Features:
    """Learn from the columns of users."""
    if catalogue.users is None:
        return Features(())
    table = {name: catalogue.users[name].tolist() for name in catalogue.user_kinds}
    return learn(table, catalogue.user_kinds, min_count=FEW)


def sides(catalogue: Catalogue, items: Features, users: Features, vectors: np.ndarray | None) -> SideInformation:
    """vectors: (items, dim), NaN without a picture, or None. Pictures come first, then the columns of `items`."""
    table = {column.name: catalogue.items[column.name].tolist() for column in items.columns}
    blocks = [items.encode(table, len(catalogue.items))]
    if vectors is not None:
        blocks.insert(0, np.nan_to_num(np.asarray(vectors)))
    of_items = np.concatenate(blocks, axis=1)
    if catalogue.users is None or not users.width:
        return SideInformation(of_items if of_items.shape[1] else None)
    profiles = {column.name: catalogue.users[column.name].tolist() for column in users.columns}
    encoded = users.encode(profiles, len(catalogue.users))
    return SideInformation(of_items if of_items.shape[1] else None, encoded, tuple(catalogue.users["user_id"]))
