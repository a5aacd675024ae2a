"""How far what is seen is from what was expected: the population stability index (PSI), and what chance makes of it.

    PSI = sum over the bins of (q - p) ln(q / p)      p: expected, q: seen

It is the symmetric divergence of Jeffreys (1946). Its thresholds come from credit scoring (Siddiqi, Credit Risk
Scorecards, 2006). Without drift it is not 0: with n photos beside a reference of m photos it is distributed as
(1/n + 1/m) times chi-squared of bins - 1 degrees of freedom (Yurdakul, Statistical Properties of Population Stability
Index, 2018). That needs many photos in each bin. Here samples are drawn, so that the level holds for few as well.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import numpy as np

SOME, MUCH = 0.1, 0.25  # PSI from which a distribution has shifted a little, and a lot
CHANCE = 0.99  # the share of samples without drift whose PSI stays below what is said of chance
DRAWS = 1000  # samples that it is taken from
PRIOR = 0.5  # photos added to each bin, as of Jeffreys's prior: an empty bin gives no infinity
STEP = 1.05  # chance is drawn anew for so many times more photos
NONE, UNCLEAR, SLIGHT, DRIFT = VERDICTS = ("no drift", "too few photos to tell", "slight drift", "drift")


@dataclass(frozen=True, slots=True)
class Shift:
    """One distribution. names, expected, seen: of each bin, in photos; chance: the PSI that 1 in 100 samples without
    drift reaches."""

    what: str
    psi: float
    chance: float
    verdict: str
    photos: int
    names: tuple[str, ...]
    expected: tuple[int, ...]
    seen: tuple[int, ...]

    @classmethod
    def measure(cls, what: str, names: Iterable[str], expected: Iterable[int], seen: Iterable[int]) -> "Shift":
        """From the photos in each bin, one of them seen at least."""
        expected, seen = tuple(map(int, expected)), tuple(map(int, seen))
        found = float(psi(np.array(expected), np.array(seen)))
        chance = chance_level(expected, sum(seen))
        return cls(what, found, chance, judge(found, chance), sum(seen), tuple(names), expected, seen)


@dataclass(frozen=True, slots=True)
class Drift:
    """What came in beside what a release expects. photos: how many; seconds: in which they came, None for a folder;
    unmeasured: why there is nothing to compare, "" where there is."""

    release: str
    photos: int
    seconds: float | None
    shifts: tuple[Shift, ...]
    unmeasured: str = ""

    @property
    def verdict(self) -> str:
        """The worst of them."""
        return max((shift.verdict for shift in self.shifts), key=VERDICTS.index, default=UNCLEAR)

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "verdict": self.verdict}

    @classmethod
    def from_json(cls, said: Mapping[str, Any]) -> "Drift":
        """From plain values. Raises KeyError, TypeError where these are others."""
        shifts = tuple(
            Shift.measure(each["what"], each["names"], each["expected"], each["seen"]) for each in said["shifts"]
        )
        return cls(said["release"], said["photos"], said["seconds"], shifts, said["unmeasured"])


def psi(expected: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """expected, seen: (..., bins) photos -> (...)."""
    p, q = _shares(expected), _shares(seen)
    found: np.ndarray = ((q - p) * np.log(q / p)).sum(axis=-1)
    return found


def chance_level(expected: Sequence[int], photos: int) -> float:
    """The PSI that a share of `CHANCE` of the samples of so many photos stays below where nothing has shifted.

    It is drawn once for each step of a twentieth more photos, for the fewer, of which chance makes more."""
    step = int(np.log(photos) / np.log(STEP))
    return _drawn(tuple(expected), max(1, int(STEP**step)))


def judge(found: float, chance: float) -> str:
    """What a PSI says: no drift within what chance gives, however large that is."""
    if found <= chance:
        return UNCLEAR if chance >= MUCH else NONE
    return DRIFT if found >= MUCH else SLIGHT if found >= SOME else NONE


@lru_cache(maxsize=1024)
def _drawn(expected: tuple[int, ...], photos: int) -> float:
    """Both are samples: the photos that were seen, and those that the reference was made of."""
    rng = np.random.default_rng(0)
    shares = _shares(np.array(expected))
    drawn = psi(rng.multinomial(sum(expected), shares, DRAWS), rng.multinomial(photos, shares, DRAWS))
    return float(np.quantile(drawn, CHANCE))


def _shares(photos: np.ndarray) -> np.ndarray:
    added: np.ndarray = photos + PRIOR
    shares: np.ndarray = added / added.sum(axis=-1, keepdims=True)
    return shares
