"""A shop that retrains: its catalogue as it was in the first month, in full, and with a log that was spoilt."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import mlflow.tracking._tracking_service.utils as mlflow_paths
import numpy as np
import pandas as pd

from tests.quick import options
from training.options import Options
from training.pipeline import train
from training.promotion.registry import local
from training.ranker.fitting import RankerParameters

FIRST_MONTH = 0.6  # of the log


@dataclass(frozen=True)
class Shop:
    """Its catalogue today, and its releases: 1 of the first month, 2 of everything, 3 of a log in which everybody
    touched what somebody else did."""

    catalogue: Path
    releases: Path

    def options(self, catalogue: Path | None = None) -> Options:
        """Training that takes a few seconds."""
        return options(catalogue or self.catalogue, self.releases, ranker=RankerParameters(factors=8, sweeps=3))

    def copy(self, folder: Path) -> "Shop":
        """Another one like it, with a registry of its own, which knows the releases by their numbers."""
        copied = shutil.copytree(self.releases, folder / "releases", ignore=shutil.ignore_patterns(".stages"))
        local(copied).mlflow_client  # noqa: B018  finds that it has moved
        mlflow_paths._artifact_repos_cache.clear()  # by the runs, which are those of the original in this process
        return Shop(self.catalogue, copied)


def open_shop(boutique: Path, folder: Path, *, pictures: bool) -> Shop:
    """Train all three, each under the number that its registry gives."""
    first, today, spoilt = catalogues(boutique, folder, pictures=pictures)
    shop = Shop(today, folder / "releases")
    for number, catalogue in enumerate((first, today, spoilt), start=1):
        path = train(shop.options(catalogue), local(shop.releases))
        assert path == shop.releases / str(number)
    return shop


def catalogues(boutique: Path, folder: Path, *, pictures: bool) -> tuple[Path, Path, Path]:
    """As it was in the first month, as it is today, and with a spoilt log."""
    today = Path(shutil.copytree(boutique, folder / "today"))
    if not pictures:
        shutil.rmtree(today / "images")
        _change(today / "items.csv", lambda items: items.assign(image=""))
    first = Path(shutil.copytree(today, folder / "first"))
    _change(first / "interactions.csv", _first_month)
    spoilt = Path(shutil.copytree(today, folder / "spoilt"))
    _change(spoilt / "interactions.csv", _shuffled)
    return first, today, spoilt


def _change(table: Path, change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    change(pd.read_csv(table, dtype=str, keep_default_na=False)).to_csv(table, index=False)


def _first_month(log: pd.DataFrame) -> pd.DataFrame:
    times = log["timestamp"].astype(float)
    return log[times < times.quantile(FIRST_MONTH)]


def _shuffled(log: pd.DataFrame) -> pd.DataFrame:
    return log.assign(item_id=np.random.default_rng(0).permutation(log["item_id"].to_numpy()))
