"""The checks of the gate, one after another."""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from pydantic import ValidationError

from service.encoder import preprocessing
from service.http.schemas import RecommendationOut, to_json
from service.recommender.agreement import overlap
from service.recommender.pipeline import Recommender
from service.recommender.query import Query
from training.data.catalogue import Catalogue
from training.encoder.precisions import chain_overlaps
from training.evaluation.held_out_questions import (
    COLD_ITEMS,
    COLD_USERS,
    LIFT,
    NDCG,
    POPULARITY,
    RECALL,
    WARM,
    HeldOutQuestions,
    Measures,
    rows_in,
)
from training.evaluation.users_by_key import for_catalogue
from training.measures import LEVEL, interval

COMPARED, PROBED = 100, 200  # queries
Thresholds = dict[str, dict[str, float]]


@dataclass(frozen=True, slots=True)
class Check:
    """One question of the gate. passed: None where it was shown and decides nothing; value, production: what was
    measured; bound: what was asked; interval: of the difference to production, paired, 95 %."""

    name: str
    passed: bool | None
    value: float | None
    production: float | None
    bound: str
    interval: list[float] = field(default_factory=list)
    note: str = ""


def of_ranking(
    mine: Measures, theirs: Measures | None, questions: HeldOutQuestions, asked: dict[str, float]
) -> Iterator[Check]:
    few = int(asked["fewest_shoppers"])
    for kind, share in ((WARM, "least_share"), (COLD_ITEMS, "least_share_cold"), (COLD_USERS, "least_share_cold")):
        for measure in (NDCG, RECALL):
            name = f"{kind}.{measure}"
            if name in mine.each:
                yield _not_worse(name, mine, theirs, asked[share], fewest=few)
    if WARM not in questions.held:
        return
    popular = float(questions.popular[f"{POPULARITY}.{NDCG}"].mean())
    own = mine.each[f"{WARM}.{NDCG}"]
    times = asked["least_over_popularity"]
    passed = _decides(len(own), few, float(own.mean()) >= times * popular)
    yield Check("over popularity", passed, float(own.mean()), None, f"nDCG@10 at least {times:g} x {popular:.4f}")
    groups = {name: _only(who) for name, who in questions.groups().items() if who.sum() >= few}
    if theirs is not None and f"{WARM}.{NDCG}" in theirs.each and groups:
        yield _worst_group(mine, theirs, groups, asked["least_share_group"], few)
    bound = asked["least_coverage_share"]
    held = None if theirs is None else mine.coverage >= bound * theirs.coverage
    yield Check(
        "coverage",
        held,
        mine.coverage,
        None if theirs is None else theirs.coverage,
        f"at least {bound:g} of production's",
    )


def _worst_group(
    mine: Measures, theirs: Measures, groups: dict[str, Callable[[np.ndarray], np.ndarray]], share: float, few: int
) -> Check:
    """The group that lost most, tested as one of so many: of twenty groups of two equal releases one is always far
    behind, so each interval holds for all of them at once (Bonferroni)."""
    checks = [
        _not_worse(
            f"{WARM}.{NDCG}", mine, theirs, share, fewest=few, take=take, called=f"worst group: {name}",
            level=1 - (1 - LEVEL) / len(groups),
        )
        for name, take in groups.items()
    ]  # fmt: skip
    worst = min(checks, key=lambda check: (check.passed is not False, (check.value or 0) / (check.production or 1)))
    return replace(worst, note=f"{worst.note}; the worst of {len(groups)}")


def of_pictures(
    recommender: Recommender,
    mine: Measures,
    theirs: Measures | None,
    questions: HeldOutQuestions,
    asked: dict[str, float],
) -> Iterator[Check]:
    name = "photos.precision_at_10"
    if name not in mine.each:
        return
    if questions.catalogue.items["category"].notna().any():
        yield _not_worse(name, mine, theirs, asked["least_share"])
    recall = _index_recall(recommender, questions)
    yield Check(
        "index recall@10",
        recall >= asked["least_index_recall"],
        recall,
        None,
        f"at least {asked['least_index_recall']:g}",
    )
    queries = questions.queries(COMPARED)
    for precision in list(recommender.release.encoders)[1:]:
        other = Recommender(recommender.release, precision=precision, user_key=recommender.users.key)
        other = for_catalogue(other, questions.catalogue)
        median = float(np.median(chain_overlaps(recommender, other, queries)))
        yield Check(
            f"{precision} overlap@10 with float32",
            median >= asked["least_precision_overlap"],
            median,
            None,
            f"at least {asked['least_precision_overlap']:g} at the median query",
        )


def of_likeness(mine: Measures, theirs: Measures | None, asked: dict[str, float]) -> Iterator[Check]:
    if theirs is None:
        return
    asked_both = list(zip(theirs.shown, mine.shown, strict=False))
    shared = float(np.mean([overlap(*both) for both in asked_both])) if asked_both else 0.0
    yield Check(
        "overlap@10 with production",
        shared >= asked["least_overlap"],
        shared,
        None,
        f"at least {asked['least_overlap']:g}",
    )


def of_answers(recommenders: Sequence[Recommender], questions: HeldOutQuestions) -> Iterator[Check]:
    """It answers what production answers, with replies as the service documents them and every attribute of today."""
    releases = [each.release for each in recommenders]
    able = [{"photos": bool(each.encoders), "shoppers": each.ranker is not None} for each in releases]
    missing = [kind for kind, there in able[-1].items() if there and not able[0][kind]]
    note = f"no answer to {', '.join(missing)}" if missing else ""
    yield Check("answers what production answers", not missing, None, None, "photos, users", note=note)
    fields: list[set[str]] = []
    wrong = ""
    for recommender in recommenders:
        answers = [recommender.recommend([query])[0] for query in questions.queries(4) or [Query()]]
        try:
            for answer in answers:
                RecommendationOut.model_validate_json(to_json(answer), strict=True)
        except ValidationError as error:
            wrong = str(error).splitlines()[0]
        fields.append({name for answer in answers for item in answer.items for name in item.attributes})
    lost = sorted(fields[-1] - fields[0])
    note = f"without {', '.join(lost)}" if lost else wrong
    yield Check(
        "schema of replies", not (lost or wrong), None, None, "as documented, with production's attributes", note=note
    )


def _not_worse(
    measure: str,
    mine: Measures,
    theirs: Measures | None,
    share: float,
    *,
    fewest: int = 0,
    take: Callable[[np.ndarray], np.ndarray] = lambda values: values,
    called: str = "",
    level: float = LEVEL,
) -> Check:
    """Fails where the mean falls below its share of production's and chance does not explain that it is lower."""
    own = take(mine.each[measure])
    name = called or measure
    note = f"{len(own)} users" if fewest else f"{len(own)} photos"
    if theirs is None or measure not in theirs.each:
        return Check(name, None, float(own.mean()), None, "nothing to compare with", interval(own), note)
    other = take(theirs.each[measure])
    difference = interval(own - other, level=level)
    passed = bool(_share(own, other) >= share or difference[1] >= 0)
    passed_or_open = _decides(len(own), fewest, passed)
    return Check(
        name,
        passed_or_open,
        float(own.mean()),
        float(other.mean()),
        f"at least {share:g} of production's",
        difference,
        note,
    )


def _decides(users: int, fewest: int, passed: bool) -> bool | None:
    return passed if users >= fewest else None


def _only(who: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    return lambda values: values[who]


def _share(own: np.ndarray, other: np.ndarray) -> float:
    return float(own.mean() / other.mean()) if other.mean() else 1.0


def of_photo_and_user(mine: Measures, theirs: Measures | None, fewest: int) -> Iterator[Check]:
    """A user's taste must add something to the photo, and no less than in production beyond chance."""
    if LIFT not in mine.each:
        return
    own = mine.each[LIFT]
    ends = interval(own)
    other = theirs.each.get(LIFT) if theirs is not None else None
    behind = other is not None and interval(own - other)[1] < 0
    bound = "above 0" if other is None else "above 0, and not below production's beyond chance"
    passed = _decides(len(own), fewest, bool(own.mean() > 0 and not behind))
    shown = ends if other is None else interval(own - other)
    note = f"nDCG@10 of both over that of the photo alone, {len(own)} pairs, {ends[0]:+.4f} to {ends[1]:+.4f}"
    yield Check(LIFT, passed, float(own.mean()), None if other is None else float(other.mean()), bound, shown, note)


def of_looks(recommender: Recommender, catalogue: Catalogue) -> np.ndarray | None:
    """(items of the catalogue, dim): their vectors in a release, NaN for those that it does not hold; None for a
    release without pictures or without users."""
    index = recommender.release.index
    if index is None or recommender.release.ranker is None:
        return None
    rows = rows_in(recommender, catalogue)
    found: np.ndarray = np.full((len(rows), index.shape[1]), np.nan, np.float32)
    found[rows >= 0] = index.vectors(rows[rows >= 0])
    return found


def _index_recall(recommender: Recommender, questions: HeldOutQuestions) -> float:
    """recall@10 of the index for photos, against looking at every vector."""
    index = recommender.release.index
    assert index is not None
    pixels = preprocessing.decode_all(
        (questions.catalogue.picture(row) for row in questions.photos[:PROBED]),
        preprocessing=recommender.release.preprocessing,
    )
    asked = np.concatenate([recommender.encode(pixels[at : at + 32]) for at in range(0, len(pixels), 32)])
    return index.recall(asked, k=min(10, len(index)))


def digest_of(thresholds: Thresholds) -> str:
    return hashlib.sha256(json.dumps(thresholds, sort_keys=True).encode()).hexdigest()
