"""The population stability index, and what chance alone makes of it."""

import math

import numpy as np
import pytest

from service.recommender.drift.stability import DRIFT, NONE, SLIGHT, UNCLEAR, Drift, Shift, chance_level, judge, psi

SHAPES = {
    "ten alike": np.ones(10) / 10,
    "thirty categories, most of them rare": (lambda w: w / w.sum())(1 / np.arange(1, 31)),
    "one in fifty is foreign": np.array([0.02, 0.98]),
}


def test_it_is_the_sum_of_its_definition() -> None:
    """Two of a hundred thousand photos each: what is added to empty bins is lost in them."""
    expected, seen = np.array([50_000, 50_000]), np.array([20_000, 80_000])
    by_hand = (0.2 - 0.5) * math.log(0.2 / 0.5) + (0.8 - 0.5) * math.log(0.8 / 0.5)
    assert psi(expected, seen) == pytest.approx(by_hand, abs=1e-3)
    assert psi(expected, expected) == 0
    assert psi(expected, seen) == pytest.approx(psi(seen, expected))


def test_an_empty_bin_gives_no_infinity() -> None:
    """Neither where nothing was expected, nor where nothing was seen."""
    for expected, seen in (([100, 0], [50, 50]), ([50, 50], [100, 0]), ([100, 0], [0, 100])):
        assert 0.1 < float(psi(np.array(expected), np.array(seen))) < 20


@pytest.mark.parametrize("photos", [30, 300, 2000])
@pytest.mark.parametrize("shares", SHAPES.values(), ids=SHAPES.keys())
def test_one_in_a_hundred_samples_without_drift_passes_the_level_of_chance(shares: np.ndarray, photos: int) -> None:
    """Whatever the bins, and however few the photos: references and samples are drawn from one distribution."""
    rng = np.random.default_rng(1)
    passed = []
    for expected in rng.multinomial(2000, shares, size=200):
        level = chance_level(expected.tolist(), photos)
        passed += (psi(expected, rng.multinomial(photos, shares, size=20)) > level).tolist()
    assert 0.003 <= np.mean(passed) <= 0.02


def test_fewer_photos_leave_more_to_chance() -> None:
    """As (bins - 1) / n says, and no more than the reference itself leaves."""
    levels = [chance_level([100] * 10, photos) for photos in (50, 500, 5000, 50_000)]
    assert levels == sorted(levels, reverse=True)
    assert levels[0] == pytest.approx(21.7 * (1 / 50 + 1 / 1000), rel=0.2), "chi-squared of 9 passes 21.7 once in 100"
    assert levels[-1] == pytest.approx(21.7 / 1000, rel=0.2)


@pytest.mark.parametrize(
    ("found", "chance", "verdict"),
    [(0.05, 0.04, NONE), (0.15, 0.04, SLIGHT), (0.3, 0.04, DRIFT), (0.15, 0.2, NONE), (0.3, 0.4, UNCLEAR)],
)
def test_drift_is_what_passes_the_thresholds_and_chance(found: float, chance: float, verdict: str) -> None:
    """Within chance a high figure says nothing; beyond it a low one does not matter."""
    assert judge(found, chance) == verdict


def test_a_drift_comes_back_from_its_json() -> None:
    """Figures and bins; the worst verdict is that of the whole."""
    kept = Shift.measure("categories", ("dress", "hat"), (500, 500), (510, 490))
    moved = Shift.measure("in_catalogue", ("something else", "in the catalogue"), (20, 980), (900, 100))
    drift = Drift("7", 1000, 3600.0, (kept, moved))
    assert (kept.verdict, moved.verdict, drift.verdict) == (NONE, DRIFT, DRIFT)
    assert Drift.from_json(drift.as_json()) == drift
    assert Drift("7", 0, 3600.0, ()).verdict == UNCLEAR
