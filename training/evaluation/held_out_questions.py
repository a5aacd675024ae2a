"""Held-out questions that several releases are asked alike, each through service.recommender.pipeline."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from service.recommender.pipeline import Recommender
from service.recommender.query import MAX_K, Query
from training.data import split
from training.data.catalogue import Catalogue
from training.data.split import HeldOut
from training.evaluation import baselines, beyond_accuracy, photo_and_user, ranking
from training.evaluation.photo_and_user import Questions
from training.progress import track

USERS, PHOTOS = 1000, 200
WARM, COLD_ITEMS, COLD_USERS, POPULARITY = "warm", "cold_items", "cold_users", "popularity"
LIFT = "photo_and_shopper.lift"
NDCG, RECALL = "ndcg_at_10", "recall_at_20"


@dataclass(frozen=True, slots=True)
class Measures:
    """What a release made of it. each: name of a measure -> (n,) a value for every user or photo, in the order of
    the questions; shown: item ids of each answer, first those for users, then those for photos."""

    each: dict[str, np.ndarray]
    shown: list[list[str]]
    coverage: float


@dataclass(frozen=True, slots=True)
class HeldOutQuestions:
    """Users by the kind of question, what they touched later, and photos."""

    catalogue: Catalogue
    held: dict[str, HeldOut]
    photos: np.ndarray  # rows of items
    popular: dict[str, np.ndarray] = field(default_factory=dict)  # what popularity alone makes of it
    encounters: Questions | None = None  # with a photo and a user

    def ask(self, recommender: Recommender) -> Measures:
        """All questions, of one release."""
        each: dict[str, np.ndarray] = {}
        shown: list[list[str]] = []
        coverage = 0.0
        rows = rows_in(recommender, self.catalogue)
        name = f"release {recommender.release.number}"
        if WARM in self.held:
            held = self.held[WARM]
            asked = track(held.users, f"{name}: users")
            answers = [recommender.recommend([Query(user_id=user, k=MAX_K)])[0] for user in asked]
            ids = {item: row for row, item in enumerate(self.catalogue.items["item_id"])}
            ranked = np.stack([ranking.answer_rows(answer, ids.get, held.candidates) for answer in answers])
            each |= _named(WARM, ranking.list_measures(ranked, held))
            shown += [[item.item_id for item in answer.items[:10]] for answer in answers]
            top = ranked[:, :10]
            coverage = len(np.unique(top[top >= 0])) / max(1, int(held.candidates.sum()))
        for kind in (COLD_ITEMS, COLD_USERS):
            if kind in self.held:
                held = self.held[kind]
                ranked, _ = baselines.judge(ranking.release_scorer(recommender, held, rows), held, k=ranking.DEPTH)
                each |= _named(kind, ranking.list_measures(ranked, held))
        if len(self.photos) and recommender.release.encoders:
            found, right = self._look(recommender, name)
            shown += found
            each["photos.precision_at_10"] = right
            if self.encounters is not None and recommender.release.ranker is not None:
                each[LIFT] = photo_and_user.lift(photo_and_user.ask(recommender, self.catalogue, self.encounters))
        return Measures(each, shown, coverage)

    def queries(self, count: int) -> list[Query]:
        """Some of the questions: photos, every second one by a user."""
        users = self.held[WARM].users if WARM in self.held else []
        if not len(self.photos):
            return [Query(user_id=user) for user in users[:count]]
        return [
            Query(image=self.catalogue.picture(row), user_id=users[at % len(users)] if users and at % 2 else None)
            for at, row in enumerate(self.photos[:count])
        ]

    def groups(self) -> dict[str, np.ndarray]:
        """Groups of the users that are asked about: name -> (users,) bool."""
        if WARM not in self.held:
            return {}
        found = beyond_accuracy.group_members(self.catalogue, self.held[WARM].users)
        return {f"{column} {name}": who for column, groups in found.items() for name, who in groups.items()}

    def _look(self, recommender: Recommender, name: str) -> tuple[list[list[str]], np.ndarray]:
        """For each photo the items that are shown, and the share of its category among them."""
        category = dict(zip(self.catalogue.items["item_id"], self.catalogue.primary_category(), strict=True))
        shown, right = [], []
        for row in track(self.photos.tolist(), f"{name}: photos"):
            own = str(self.catalogue.items["item_id"].iloc[row])
            answer = recommender.recommend([Query(image=self.catalogue.picture(row), k=11)])[0]
            items = [item.item_id for item in answer.items if item.item_id != own][:10]
            shown.append(items)
            right.append(np.mean([category.get(item) == category[own] for item in items] or [0.0]))
        return shown, np.array(right)


def rows_in(recommender: Recommender, catalogue: Catalogue) -> np.ndarray:
    """(items of the catalogue,): the row of each in a release, -1 for those that it does not hold."""
    found = (recommender.release.items.find(item) for item in catalogue.items["item_id"])
    return np.array([-1 if row is None else row for row in found])


def last_cutoff(recommenders: Sequence[Recommender]) -> int | None:
    """Seconds after which nothing taught any of them; None where the first has no ranker. Those without interactions
    have no say."""
    manifests = [recommender.release.manifest for recommender in recommenders]
    found = [manifest.data["cutoff"] for manifest in manifests if manifest.ranker is not None]
    return max(found) if found and manifests[0].ranker is not None else None


def draw_questions(
    catalogue: Catalogue, cutoff: int | None, *, vectors: np.ndarray | None = None, seed: int = 0
) -> HeldOutQuestions:
    """cutoff: seconds after which nothing taught any of the releases; None: no user is asked about; vectors:
    (items of the catalogue, dim) by which items look alike, NaN without a picture; None: no photo meets a user."""
    held: dict[str, HeldOut] = {}
    popular: dict[str, np.ndarray] = {}
    items = len(catalogue.items)
    if catalogue.interactions is not None and cutoff is not None:
        cut = split.at(catalogue.interactions, cutoff)
        kinds: dict[str, Any] = {WARM: split.warm, COLD_ITEMS: split.cold_items, COLD_USERS: split.cold_users}
        asked = {kind: make(cut, items=items).sample(USERS) for kind, make in kinds.items()}
        held = {kind: found for kind, found in asked.items() if found.users}
        if WARM in held:
            ranked, _ = baselines.judge(baselines.popularity(cut, items=items), held[WARM], k=ranking.DEPTH)
            popular = _named(POPULARITY, ranking.list_measures(ranked, held[WARM]))
    pictured = np.array(catalogue.pictured(), dtype=np.int64)
    photos = np.random.default_rng(seed).permutation(pictured)[:PHOTOS]
    met = (
        photo_and_user.draw(catalogue, held[WARM], vectors, seed=seed) if WARM in held and vectors is not None else None
    )
    if met is not None and len(met.users) < photo_and_user.FEWEST:
        met = None
    return HeldOutQuestions(catalogue, held, photos, popular, met)


def _named(kind: str, measured: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {f"{kind}.{name}": measured[name] for name in (NDCG, RECALL)}
