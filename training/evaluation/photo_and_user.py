"""With a photo and a user: are people shown more of what they touch next, and does it still look like the photo?

Each question is a user who was held out and a photo, augmented, of an item that looks like one they touched later
and is of its kind. The item in the photo is left out, all that the user touched later counts as right, and three
tiers answer it: by the photo alone, by both, and by the user alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from service.encoder import preprocessing
from service.recommender.pipeline import Recommender
from service.recommender.query import MAX_K, Query
from service.recommender.recommendation import Recommendation
from training import measures
from training.data.catalogue import Catalogue
from training.data.split import HeldOut
from training.encoder.augmentation import augment
from training.evaluation.report import Encounter
from training.progress import track

QUESTIONS = 400
BATCH = 32
SHOWN = 10
TIERS = ("visual", "ranked", "taste")
FEWEST = 30  # questions, for a figure
USERS = 4  # that one photo of the report is answered for
PHOTOS = 3


@dataclass(frozen=True, slots=True)
class Questions:
    """users: their ids; shows: (n,) catalogue rows of the photographed items; pixels: (n, 224, 224, 3) uint8, the
    photos; relevant, seen: catalogue rows that each touched later, and before."""

    users: list[str]
    shows: np.ndarray
    pixels: np.ndarray
    relevant: list[np.ndarray]
    seen: list[np.ndarray]


@dataclass(frozen=True, slots=True)
class Answered:
    """What one tier made of them, (n,) each: nDCG@10, the share of answers in the photo's category (NaN where it has
    none), the mean cosine with the photo; top: (n, 10) catalogue rows, -1 where there are fewer."""

    ndcg: np.ndarray
    own_category: np.ndarray
    likeness: np.ndarray
    top: np.ndarray


def draw(catalogue: Catalogue, held: HeldOut, vectors: np.ndarray, *, seed: int = 0) -> Questions:
    """Questions of those who were held out. vectors: (items, dim) by which items look alike, NaN without a picture."""
    rng = np.random.default_rng(seed)
    category = np.array(catalogue.primary_category(), dtype=object)
    able = np.isfinite(vectors[:, 0])
    found: list[tuple[int, int]] = []  # position among the held out, row of the photographed item
    for at in rng.permutation(len(held.users)):
        wanted = held.relevant[at][able[held.relevant[at]]]
        if not len(wanted):
            continue
        item = int(rng.choice(wanted))
        alike = able & (category == category[item]) if category[item] is not None else able.copy()
        alike[np.union1d(held.seen[at], held.relevant[at])] = False
        rows = np.flatnonzero(alike)
        if len(rows):
            found.append((int(at), int(rows[(vectors[rows] @ vectors[item]).argmax()])))
        if len(found) == QUESTIONS:
            break
    shows = np.array([row for _, row in found], dtype=np.int64)
    return Questions(
        [held.users[at] for at, _ in found],
        shows,
        _photograph(catalogue, shows, seed),
        [held.relevant[at] for at, _ in found],
        [held.seen[at] for at, _ in found],
    )


def _photograph(catalogue: Catalogue, rows: np.ndarray, seed: int) -> np.ndarray:
    generator = torch.Generator().manual_seed(seed)
    side = preprocessing.PREPROCESSING.crop
    parts = [np.empty((0, side, side, 3), np.uint8)]
    for start in track(range(0, len(rows), BATCH), "photographing items for users"):
        squares = preprocessing.decode_all(catalogue.picture(int(row)) for row in rows[start : start + BATCH])
        views = augment(torch.from_numpy(squares), size=side, generator=generator).round().clamp(0, 255)
        parts.append(views.to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy())
    return np.concatenate(parts)


def ask(recommender: Recommender, catalogue: Catalogue, questions: Questions) -> dict[str, Answered]:
    """Each tier on all questions. Items that the user has touched before are left out of all answers alike."""
    rows = {item: row for row, item in enumerate(catalogue.items["item_id"])}
    photos = np.concatenate([
        recommender.encode(questions.pixels[start : start + BATCH])
        for start in range(0, len(questions.pixels), BATCH)
    ])  # fmt: skip
    category = np.array(catalogue.primary_category(), dtype=object)
    answered = {}
    for tier in TIERS:
        top = np.full((len(photos), SHOWN), -1, np.int64)
        alike = np.zeros(len(photos))
        for at in track(range(len(photos)), f"with a photo and a user: {tier}"):
            query = Query(user_id=None if tier == "visual" else questions.users[at], k=MAX_K)
            [answer] = recommender.recommend([query], vectors=[None if tier == "taste" else photos[at]])
            shown = _rows(answer, rows, np.append(questions.seen[at], questions.shows[at]))
            top[at, : len(shown)] = shown
            alike[at] = _likeness(recommender, catalogue, shown, photos[at])
        hits = measures.hits_of(top, questions.relevant)
        sizes = np.array([len(each) for each in questions.relevant])
        own = np.array([
            np.nan if category[shows] is None else np.mean(category[line[line >= 0]] == category[shows])
            for line, shows in zip(top, questions.shows, strict=True)
        ])  # fmt: skip
        answered[tier] = Answered(measures.list_measures(hits, sizes, SHOWN)[f"ndcg_at_{SHOWN}"], own, alike, top)
    return answered


def lift(answered: dict[str, Answered]) -> np.ndarray:
    """(n,): how much more nDCG@10 both give than the photo alone."""
    gained: np.ndarray = answered["ranked"].ndcg - answered["visual"].ndcg
    return gained


def measure(recommender: Recommender, catalogue: Catalogue, held: HeldOut) -> tuple[dict[str, Any], list[Encounter]]:
    """The figures of every tier, the lift with its paired interval, and photos answered for several users; nothing
    where too few questions can be asked."""
    index = recommender.release.index
    assert index is not None
    vectors = index.vectors(np.arange(index.shape[0]))
    questions = draw(catalogue, held, vectors)
    if len(questions.users) < FEWEST:
        return {}, []
    answered = ask(recommender, catalogue, questions)
    utility = _utility(catalogue)
    metrics: dict[str, Any] = {"questions": len(questions.users)}
    for tier, each in answered.items():
        metrics[tier] = measures.with_intervals({"ndcg_at_10": each.ndcg}) | {"likeness": float(each.likeness.mean())}
        if np.isfinite(each.own_category).any():
            metrics[tier]["own_category"] = float(np.nanmean(each.own_category))
        if utility is not None:
            who = [utility[0][user] for user in questions.users]
            metrics[tier]["true_utility"] = float(np.mean([
                utility[1][row, line[line >= 0]].mean() for row, line in zip(who, each.top, strict=True)
            ]))  # fmt: skip
    gained = lift(answered)
    metrics["lift"] = {"ndcg_at_10": float(gained.mean()), "ndcg_at_10_interval": measures.interval(gained)}
    return metrics, _encounters(recommender, catalogue, questions)


def _rows(answer: Recommendation, rows: dict[str, int], without: np.ndarray) -> list[int]:
    left = set(without.tolist())
    found = [rows[item.item_id] for item in answer.items if item.item_id in rows]
    return [row for row in found if row not in left][:SHOWN]


def _likeness(recommender: Recommender, catalogue: Catalogue, shown: Sequence[int], photo: np.ndarray) -> float:
    release = recommender.release
    assert release.index is not None
    ids = catalogue.items["item_id"]
    found = [release.items.row(str(ids.iloc[row])) for row in shown]
    if not found:
        return 0.0
    return float((release.index.vectors_or_zero(np.array(found)) @ photo).mean())


def _utility(catalogue: Catalogue) -> tuple[dict[str, int], np.ndarray] | None:
    """user -> row, and what each truly likes, in standard deviations: (users, items). Only drawn catalogues know it."""
    path, users = catalogue.path / "truth.npy", catalogue.users
    if not path.exists() or users is None:
        return None
    truth = np.load(path, allow_pickle=False)
    if truth.shape != (len(users), len(catalogue.items)):
        return None
    spread = np.maximum(truth.std(axis=1, keepdims=True), 1e-9)
    return {user: row for row, user in enumerate(users["user_id"])}, (
        truth - truth.mean(axis=1, keepdims=True)
    ) / spread


def _encounters(recommender: Recommender, catalogue: Catalogue, questions: Questions) -> list[Encounter]:
    """One photo each, answered for nobody and for users whose tastes lie far apart."""
    ranker, items = recommender.release.ranker, recommender.release.items
    assert ranker is not None
    profiles = np.array([_answer_vector(recommender, user) for user in questions.users])
    made = []
    for at in range(0, len(questions.users), max(1, len(questions.users) // PHOTOS)):
        [photo] = recommender.encode(questions.pixels[at : at + 1])
        shows = str(catalogue.items["item_id"].iloc[questions.shows[at]])
        asked = [None, *(questions.users[who] for who in _far_apart(profiles, at))]
        queries = [Query(user_id=user, k=SHOWN) for user in asked]
        answers = recommender.recommend(queries, vectors=[photo] * len(queries))
        rows = [[items.row(item.item_id) for item in answer.items if item.item_id != shows][:6] for answer in answers]
        liked = [[] if user is None else _liked(recommender, user) for user in asked]
        made.append(Encounter(items.row(shows), liked, rows))
    return made[:PHOTOS]


def _liked(recommender: Recommender, user: str) -> list[int]:
    """The first of what a user is shown without a photo, which tells their taste."""
    [answer] = recommender.recommend([Query(user_id=user, k=3)])
    return [recommender.release.items.row(item.item_id) for item in answer.items]


def _answer_vector(recommender: Recommender, user: str) -> np.ndarray:
    """(dim,): the mean picture of what a user is shown without a photo."""
    vector: np.ndarray = recommender.scorer.likeness_vectors(np.array(_liked(recommender, user), dtype=np.int64)).mean(
        axis=0
    )
    return vector


def _far_apart(profiles: np.ndarray, first: int) -> list[int]:
    """USERS of them, each the farthest from those before it."""
    chosen = [first]
    while len(chosen) < min(USERS, len(profiles)):
        nearest = np.linalg.norm(profiles[:, None] - profiles[chosen][None], axis=2).min(axis=1)
        chosen.append(int(nearest.argmax()))
    return chosen
