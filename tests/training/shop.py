"""A shop that retrains: one boutique, its catalogue as it was in the first month, in full, and with a broken log."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd

from tests.conftest import options
from training.options import Options
from training.ranker import RankerParameters

FIRST_MONTH = 0.6  # of the log


def first_month(boutique: Path, folder: Path) -> Path:
    """The catalogue before the later part of its log had happened."""

    def cut(log: pd.DataFrame) -> pd.DataFrame:
        times = log["timestamp"].astype(float)
        return log[times < times.quantile(FIRST_MONTH)]

    return _copy(boutique, folder, cut)


def with_shuffled_labels(boutique: Path, folder: Path) -> Path:
    """The catalogue with a log in which everybody touched what somebody else did."""

    def shuffle(log: pd.DataFrame) -> pd.DataFrame:
        return log.assign(item_id=np.random.default_rng(0).permutation(log["item_id"].to_numpy()))

    return _copy(boutique, folder, shuffle)


def quick(catalogue: Path, releases: Path) -> Options:
    """Training that takes a few seconds; the factors are what promotion is about."""
    return options(catalogue, releases, ranker=RankerParameters(factors=8, sweeps=3))


def _copy(boutique: Path, folder: Path, change: object) -> Path:
    shutil.copytree(boutique, folder)
    log = pd.read_csv(folder / "interactions.csv", dtype=str)
    assert callable(change)
    change(log).to_csv(folder / "interactions.csv", index=False)
    return folder
