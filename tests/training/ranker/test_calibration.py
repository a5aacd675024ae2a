"""Scores keep their scale from one release to the next."""

from pathlib import Path

import numpy as np
import pytest

from service.recommender.pipeline import Recommender
from service.recommender.query import Query
from service.recommender.release import Release
from service.recommender.scoring.terms import BASE
from service.recommender.user_keys import DEFAULT_USER_KEY, hash_user


@pytest.fixture(scope="module")
def both(releases: Path) -> list[Recommender]:
    """Two releases of one catalogue, whose rankers are not alike."""
    return [Recommender(Release.open(releases / number)) for number in ("1", "2")]


def test_half_of_the_items_score_above_0_and_the_best_twentieth_above_1(both: list[Recommender]) -> None:
    """Whoever asks, of what they have not seen."""
    for recommender in both:
        ranker, items = recommender.release.ranker, np.arange(len(recommender.release.items))
        assert ranker is not None
        scores = []
        for user in range(200):
            row = ranker.user_row(hash_user(f"{user:05d}", DEFAULT_USER_KEY))
            if row is not None:
                unseen = np.setdiff1d(items, ranker.user(row).seen)
                scores.append(recommender.score(f"{user:05d}", unseen)[1])
        assert np.mean(np.concatenate(scores) > 0) == pytest.approx(0.5, abs=0.1)
        assert np.mean(np.concatenate(scores) > 1) == pytest.approx(0.05, abs=0.02)


def test_a_threshold_survives_a_promotion(both: list[Recommender]) -> None:
    """As many answers pass it before as after, although what a term weighs differs by factors."""
    queries = [Query(user_id=f"{user:05d}", k=20) for user in range(200)]
    passing = []
    for recommender in both:
        answers = [recommender.recommend([query])[0] for query in queries]
        passing.append(np.mean([item.score > 1 for answer in answers for item in answer.items]))
    assert min(passing) > 0.02
    assert max(passing) < 1.5 * min(passing)
    raw = [sum(weight for name, weight in each.release.blend.tiers["taste"].items() if name != BASE) for each in both]
    assert raw[0] != pytest.approx(raw[1], rel=0.05)


def test_the_terms_still_add_up(both: list[Recommender]) -> None:
    """The constant is one of them, and the same for every item."""
    [answer] = both[0].recommend([Query(user_id="00003")])
    assert len({item.terms[BASE] for item in answer.items}) == 1
    for item in answer.items:
        assert sum(item.terms.values()) == pytest.approx(item.score, abs=1e-4)
