"""Where a photo and a user meet: how much likeness is given for taste, learned and measured.

The photo of a lesson shows another item than the one that is wanted: one that looks like it and is of its kind, as
somebody would photograph it. It is left out of the answer, and all that the user touched counts as right. Both ends
of the trade are brought to one scale, their spread among the items near a photo, so that a share of one is worth as
much as the same share of the other in every catalogue.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from service.recommender.candidates import KIND_VOTERS, POOL
from service.recommender.factors import User
from service.recommender.scoring.terms import blend, term_values, vote
from service.recommender.scoring.weights import Trade
from training import measures
from training.data.side_information import Known
from training.progress import say
from training.ranker.calibration import brief
from training.ranker.lessons import Lessons

LESSONS, PHOTOS = 400, 400
NEAR = 50  # items near a photo, whose spread is the scale
SHOWN = 10
RANDOM = 200  # items that stand for all
KIND_WEIGHTS = (0.0, 1.0, 2.0, 4.0, 8.0)  # in spreads of likeness
LOOKS_KEPT = 0.97  # of the likeness, beside what random items have, that the term `kind` may not cost
LIKENESS_KEPT = 0.9  # ... and taste
KIND_KEPT = 0.98  # of the answers in the photo's category
STEPS = np.round(np.linspace(0, 1, 21), 2)
CHANCE = 2.0  # standard errors


@dataclass(frozen=True, slots=True)
class Photo:
    """rows: what may be an answer, without what the photo shows; near: positions among them of the items nearest to
    it; values: their terms; shows: the row of the item in the photo; random: its mean cosine with random items."""

    rows: np.ndarray
    near: np.ndarray
    values: Mapping[str, np.ndarray]
    shows: int
    random: float


def looks(known: Known, *, seed: int) -> dict[str, float]:
    """The weights of tier `visual`: likeness in its spreads, and as much of `kind` as finds more of the photo's own
    category at next to no cost of likeness."""
    assert known.index is not None
    assert known.views is not None
    rng = np.random.default_rng(seed)
    photos = [_look(known, int(at), None, None) for at in rng.permutation(len(known.views[0]))[:PHOTOS]]
    spread = float(np.mean([_spread(photo.values["likeness"], photo) for photo in photos])) or 1.0
    weights = {"likeness": 1 / spread}
    if known.categories is None or not known.categories.any():
        return weights
    reached = [_shown(known, photos, weights | {"kind": kind}) for kind in KIND_WEIGHTS]
    allowed = [at for at, each in enumerate(reached) if each.kept(reached[0]) >= LOOKS_KEPT]
    best = max(allowed, key=lambda at: reached[at].kind)
    if not _beyond_chance(reached[best].kinds - reached[0].kinds):
        best = 0
    say(
        f"ranker: photos find their own category in {reached[best].kind:.3f} of the answers with the votes of "
        f"neighbours, {reached[0].kind:.3f} without"
    )
    return weights | {"kind": KIND_WEIGHTS[best]}


def trade(
    lessons: Lessons, known: Known, visual: Mapping[str, float], taste: Mapping[str, float], *, seed: int
) -> tuple[Trade, dict[str, object]]:
    """The trade, and what was measured at each step of it, for the manifest. The default is where users find most of
    what they touched next, of the steps that keep enough of the likeness and of the category; 0 where taste finds
    nothing beyond chance."""
    rng = np.random.default_rng(seed)
    asked = _lessons(lessons, known, rng)
    scale = float(np.mean([_spread(_sum(photo.values, taste), photo) for photo, _ in asked])) if asked else 1.0
    liked = {name: weight / (scale or 1.0) for name, weight in taste.items()}
    if "kind" in visual:  # what a thing is stays as important all the way
        liked["kind"] = visual["kind"]
    made = Trade(0.0, dict(visual), liked)
    if not asked:
        return made, {"default": 0.0, "lessons": 0}
    photos = [photo for photo, _ in asked]
    reached = [_shown(known, photos, made.weights(step)) for step in STEPS.tolist()]
    found = np.array([
        [_ndcg(_best(photo, made.weights(step)), wanted) for photo, wanted in asked] for step in STEPS.tolist()
    ])  # fmt: skip
    allowed = [
        at for at, each in enumerate(reached)
        if each.kept(reached[0]) >= LIKENESS_KEPT and each.kind >= KIND_KEPT * reached[0].kind
    ]  # fmt: skip
    best = max(allowed, key=lambda at: found[at].mean())
    if not _beyond_chance(found[best] - found[0]):
        best = 0
    default = float(STEPS[best])
    say(
        f"ranker: a photo and a user meet at {default:.2f}: nDCG@{SHOWN} {found[best].mean():.4f}, "
        f"{found[0].mean():.4f} by the photo alone, at {reached[best].kept(reached[0]):.2f} of its likeness"
    )
    curve = [
        {
            "personalization": float(step), "ndcg_at_10": brief(ndcg.mean()), "own_category": brief(each.kind),
            "likeness_kept": brief(each.kept(reached[0])),
        }
        for step, ndcg, each in zip(STEPS, found, reached, strict=True)
    ]  # fmt: skip
    made = Trade(default, *({n: brief(w) for n, w in end.items()} for end in (made.looks, made.taste)))
    return made, {"default": default, "lessons": len(asked), "curve": curve}


def _lessons(lessons: Lessons, known: Known, rng: np.random.Generator) -> list[tuple[Photo, np.ndarray]]:
    """A photo for each, and what is right; those without a look-alike that was photographed are left out."""
    asked = []
    order = rng.permutation(len(lessons.each))
    for lesson in (lessons.each[at] for at in order):
        user = lessons.user(lesson)
        at = _lookalike(known, int(rng.choice(lesson.wanted)), np.union1d(user.seen, lesson.wanted))
        if at is not None:
            photo = _look(known, at, lessons, user)
            asked.append((photo, np.isin(photo.rows, lesson.wanted)))
        if len(asked) == LESSONS:
            break
    return asked


def _lookalike(known: Known, wanted: int, touched: np.ndarray) -> int | None:
    """Which of the views shows the item most like this one, of its kind and new to the user; None where none is."""
    assert known.index is not None
    assert known.views is not None
    rows = known.views[0]
    able = ~np.isin(rows, touched)
    if known.categories is not None:
        able &= known.categories[rows] == known.categories[wanted]
    if not known.index.pictured[wanted] or not able.any():
        return None
    cosines = known.index.vectors_or_zero(rows[able]) @ known.index.vectors(np.array([wanted]))[0]
    return int(np.flatnonzero(able)[int(cosines.argmax())])


def _look(known: Known, at: int, lessons: Lessons | None, user: User | None) -> Photo:
    """One view, and the candidates that serving would rank for it."""
    assert known.index is not None
    assert known.views is not None
    shows, vector = int(known.views[0][at]), known.views[1][at]
    allowed = np.ones(known.index.shape[0], bool)
    allowed[shows] = False
    voters, cosines = known.index.search(vector[None], k=KIND_VOTERS, allowed=allowed)
    voted = None if known.categories is None else vote(known.categories, voters[0], cosines[0])
    if user is not None:
        allowed[user.seen] = False
    nearest = known.index.search(vector[None], k=POOL, allowed=allowed)[0][0]
    nearest = nearest[nearest >= 0]
    rows = nearest
    sources = known.sources
    if user is not None and lessons is not None:
        rows = np.union1d(rows, lessons.ranker.top(user, k=POOL, allowed=allowed))
        sources = lessons.sources
    [values] = term_values(sources, [rows], [vector], [user], [voted])
    if lessons is not None:
        values |= {"popularity": lessons.at_end.popularity[rows], "trend": lessons.at_end.trend[rows]}
    others = known.index.rows[:: 1 + len(known.index.rows) // RANDOM]
    random = float((known.index.vectors(others) @ vector).mean())
    return Photo(rows, np.flatnonzero(np.isin(rows, nearest[:NEAR])), values, shows, random)


@dataclass(frozen=True, slots=True)
class _Shown:
    """What photos are answered with. likeness: mean cosine; random: that of random items; kinds: (photos,), the share
    of each one's answers that are of its category, NaN where that is not known."""

    likeness: float
    random: float
    kinds: np.ndarray

    @property
    def kind(self) -> float:
        """The mean share; 0 where no category is known."""
        known = self.kinds[np.isfinite(self.kinds)]
        return float(known.mean()) if len(known) else 0.0

    def kept(self, before: "_Shown") -> float:
        """The share of the likeness of others, beside that of random items."""
        return (self.likeness - before.random) / max(before.likeness - before.random, 1e-9)


def _shown(known: Known, photos: list[Photo], weights: Mapping[str, float]) -> _Shown:
    likeness, kinds = [], []
    for photo in photos:
        top = _best(photo, weights)
        likeness.append(photo.values["likeness"][top].mean())
        if known.categories is not None:
            own = known.categories[photo.shows]
            kinds.append((known.categories[photo.rows[top]] == own).mean() if own else np.nan)
    random = float(np.mean([photo.random for photo in photos]))
    return _Shown(float(np.mean(likeness)), random, np.array(kinds))


def _best(photo: Photo, weights: Mapping[str, float]) -> np.ndarray:
    """Positions of the items that are shown, best first."""
    return np.argsort(-_sum(photo.values, weights), kind="stable")[:SHOWN]


def _sum(values: Mapping[str, np.ndarray], weights: Mapping[str, float]) -> np.ndarray:
    found: np.ndarray = blend(values, weights)[1].sum(axis=1)
    return found


def _spread(scores: np.ndarray, photo: Photo) -> float:
    return float(scores[photo.near].std()) if len(photo.near) else 0.0


def _ndcg(top: np.ndarray, right: np.ndarray) -> float:
    """nDCG@SHOWN. top: positions shown; right: (candidates,) bool."""
    found = measures.list_measures(right[top][None], np.array([max(1, int(right.sum()))]), SHOWN)
    return float(found[f"ndcg_at_{SHOWN}"][0])


def _beyond_chance(gains: np.ndarray) -> bool:
    """Whether the mean of what is known of them lies above 0 by more than its own error."""
    known = gains[np.isfinite(gains)]
    return bool(len(known) and known.mean() > CHANCE * known.std() / len(known) ** 0.5)
