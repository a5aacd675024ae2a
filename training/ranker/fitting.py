"""The ranker of a release: interactions -> confidences, factors with their priors, histories, trends."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import scipy.sparse

from service.recommender.factors import DISMISS, EVENT_CONFIDENCES, Neighbours, Objective, Ranker
from service.recommender.user_keys import hash_user
from training.data.side_information import SideInformation
from training.data.times import DAY
from training.ranker import item_neighbours
from training.ranker.factorization import Factors, factorize

# keys of users -> factors of users and items to go on from, NaN where they are new; None: from anew
Start = Callable[[Sequence[str]], tuple[np.ndarray, np.ndarray] | None]

TREND_HALF_LIFE = 10.0  # days
TREND_SMOOTHING = 20.0  # touches that an item is credited with, so that rare ones have no trend by chance


@dataclass(frozen=True, slots=True)
class RankerParameters:
    """How to factorize. The regularisation grows with a row's observations (`Objective`); half_life: days after
    which an event counts half, or None; prior_ridge: how reluctantly features explain factors (lam_w)."""

    factors: int = 128
    sweeps: int = 12
    unobserved: float = 0.3
    regularisation: float = 0.01
    frequency: float = 1.0
    confidences: Mapping[str, float] = field(default_factory=lambda: dict(EVENT_CONFIDENCES))
    half_life: float | None = None
    prior_ridge: float = 10.0
    seed: int = 0

    @property
    def objective(self) -> Objective:
        """What serving needs to fold users in."""
        return Objective(self.unobserved, self.regularisation, self.frequency, self.confidences)


@dataclass(frozen=True, slots=True)
class Trained:
    """A trained ranker, its arrays by file name, the user ids of its rows, and what the log says when it ends."""

    ranker: Ranker
    arrays: dict[str, np.ndarray]
    users: list[str]
    end: "Moment"


def confidence_matrix(
    interactions: pd.DataFrame, *, items: int, parameters: RankerParameters, users: list[str] | None = None
) -> tuple[scipy.sparse.csr_matrix, list[str]]:
    """users x items, float32: the confidence of each touched pair by its strongest event, times the weight that a value
    gives it, halved by age; negative where the user's last word on the item is a dismissal. -> matrix, and user ids
    in the order of its rows.

    interactions: in the order of time; users: ids that get a row even without an event."""
    ids = np.unique(np.concatenate([interactions["user_id"].to_numpy(dtype=str), np.array(users or [], dtype=str)]))
    rows = np.searchsorted(ids, interactions["user_id"].to_numpy(dtype=str))
    names, codes = np.unique(interactions["event"].to_numpy(dtype=str), return_inverse=True)
    confidence = parameters.objective.confidence(list(names))[codes]
    if "weight" in interactions:
        confidence = confidence * interactions["weight"].to_numpy(np.float32)
    if parameters.half_life is not None and len(interactions):
        times = interactions["timestamp"].to_numpy()
        confidence = confidence * 0.5 ** ((times.max() - times) / (DAY * parameters.half_life))
    pair = rows.astype(np.int64) * items + interactions["item"].to_numpy()
    # stable, so that within a pair events stay in the order of time
    order = np.argsort(pair, kind="stable")
    pair, confidence = pair[order], confidence[order].astype(np.float32)
    starts = np.flatnonzero(np.diff(pair, prepend=-1))
    last = confidence[np.append(starts[1:], len(pair))[: len(starts)] - 1]
    strongest = np.maximum.reduceat(confidence, starts) if len(starts) else confidence
    words = np.where(last < 0, last, strongest)
    users_of, items_of = pair[starts] // items, (pair[starts] % items).astype(np.int32)
    indptr = np.searchsorted(users_of, np.arange(len(ids) + 1))
    return scipy.sparse.csr_matrix((words, items_of, indptr), shape=(len(ids), items)), ids.tolist()


def history_of(
    interactions: pd.DataFrame, matrix: scipy.sparse.csr_matrix, users: list[str]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """CSR arrays of who touched what, in the order of each pair's last touch: indptr, items, confidence, times."""
    rows = np.searchsorted(np.array(users, dtype=str), interactions["user_id"].to_numpy(dtype=str))
    pair = rows.astype(np.int64) * matrix.shape[1] + interactions["item"].to_numpy()
    found, place = np.unique(pair, return_inverse=True)
    times = np.full(len(found), np.iinfo(np.int64).min)
    np.maximum.at(times, place, interactions["timestamp"].to_numpy())
    # `found` is in the order of the matrix: by user, then by item
    order = np.lexsort((matrix.indices, times, found // matrix.shape[1]))
    return matrix.indptr.astype(np.int64), matrix.indices[order], matrix.data[order], times[order]


@dataclass(frozen=True, slots=True)
class Moment:
    """What the log says of the items at one time. popularity: (items,), how many users touched each before it;
    trend: (items,) float32, the logarithm of how much more an item is touched of late than over the whole log.

    It is log((late x touches / sum of late + smoothing) / (ever + smoothing)); late: (items,) float64, the touches of
    each, weighed by their age at the time `at`, in seconds; ever: (items,) float64, all of them."""

    popularity: np.ndarray
    trend: np.ndarray
    late: np.ndarray
    ever: np.ndarray
    at: float

    def continued(self) -> dict[str, float]:
        """What goes on with the trend beside `late` and `ever`: half_life in days, `at` in seconds."""
        touches = int(self.ever.sum())
        return {"half_life": TREND_HALF_LIFE, "smoothing": TREND_SMOOTHING, "at": self.at, "touches": touches}


def moments(interactions: pd.DataFrame, *, items: int, times: np.ndarray) -> Iterator[Moment]:
    """The log at each of `times`, which rise; what happens at or after a time is not known then.

    Of late: each touch weighs half for every TREND_HALF_LIFE days of its age. Both shares are those of a log of the
    same length, with TREND_SMOOTHING touches added: 0 for an item as popular as ever.
    times: (n,) seconds since 1970."""
    touches = interactions[interactions["event"] != DISMISS]
    when, item = touches["timestamp"].to_numpy(), touches["item"].to_numpy()
    first = ~touches.duplicated(["user_id", "item"]).to_numpy()
    late, ever, popularity = np.zeros(items), np.zeros(items), np.zeros(items, np.int64)
    start, clock = 0, float(when[0]) if len(when) else 0.0
    for time in times:
        end = int(np.searchsorted(when, time, side="left"))
        part = slice(start, end)
        late *= 0.5 ** ((time - clock) / (DAY * TREND_HALF_LIFE))
        weights = 0.5 ** ((time - when[part]) / (DAY * TREND_HALF_LIFE))
        late += np.bincount(item[part], weights=weights, minlength=items)
        ever += np.bincount(item[part], minlength=items)
        popularity += np.bincount(item[part][first[part]], minlength=items)
        start, clock = end, float(time)
        scaled = late * (end / max(late.sum(), 1e-9))
        found = np.log((scaled + TREND_SMOOTHING) / (ever + TREND_SMOOTHING)).astype(np.float32)
        yield Moment(popularity.copy(), found, late.copy(), ever.copy(), clock)


def at_end(interactions: pd.DataFrame, *, items: int) -> Moment:
    """What the whole log says of the items."""
    if interactions.empty:
        none = np.zeros(items)
        return Moment(none.astype(np.int64), none.astype(np.float32), none, none, 0.0)
    last = interactions["timestamp"].to_numpy()[-1:]
    return next(moments(interactions, items=items, times=last + 1))


def train(
    interactions: pd.DataFrame,
    *,
    items: int,
    parameters: RankerParameters,
    user_key: str | None,
    sides: SideInformation | None = None,
    quiet: bool = False,
    beside: bool = True,
    start: Start | None = None,
) -> Trained:
    """Factorize interactions (in the order of time), with the features of both sides as priors.

    beside: whether to look for the neighbours of items as well, which only the terms of the final sum need;
    user_key: of the hashes of user ids; None: they are keys already; start: where to go on from."""
    sides = sides or SideInformation()
    matrix, users = confidence_matrix(interactions, items=items, parameters=parameters, users=list(sides.profiles))
    profiles = _profiles(sides, users)
    made = factorize(
        matrix,
        parameters.objective,
        factors=parameters.factors,
        sweeps=parameters.sweeps,
        prior_ridge=parameters.prior_ridge,
        item_features=sides.items,
        user_features=profiles,
        seed=parameters.seed,
        quiet=quiet,
        start=None if start is None else start(_keys(users, user_key)),
    )
    indptr, history, confidence, times = history_of(interactions, matrix, users)
    touched = matrix.getnnz(axis=0) > 0
    end = at_end(interactions, items=items)
    arrays = {
        "item_factors": made.items, "user_factors": made.users, "gramian": made.items[touched].T @ made.items[touched],
        "history_indptr": indptr, "history_items": history, "history_confidence": confidence, "history_times": times,
        "trend": end.trend, "trend_late": end.late, "trend_ever": end.ever, **_priors(made, profiles),
    }  # fmt: skip
    found = None
    if beside:
        sparse = item_neighbours.item_to_item(matrix)
        arrays |= item_neighbours.arrays("item_to_item", sparse)
        found = Neighbours(sparse.indptr, sparse.indices, sparse.data)
    keys = {key: row for row, key in enumerate(_keys(users, user_key))}
    return Trained(_ranker(arrays, keys, parameters.objective, int(touched.sum()), found), arrays, users, end)


def _ranker(
    arrays: dict[str, np.ndarray],
    keys: dict[str, int],
    objective: Objective,
    touched: int,
    neighbours: Neighbours | None,
) -> Ranker:
    """The ranker over these arrays, as a release opens it."""
    return Ranker(
        arrays["item_factors"],
        arrays["user_factors"],
        arrays["gramian"],
        keys,
        arrays["history_indptr"],
        arrays["history_items"],
        arrays["history_confidence"],
        objective,
        touched,
        user_base=arrays.get("user_base"),
        trend=arrays["trend"],
        item_to_item=neighbours,
    )


def _profiles(sides: SideInformation, users: list[str]) -> np.ndarray | None:
    """(users, d): the profile of each row, zero where there is none; None where there are no profiles at all."""
    if sides.users is None or not sides.users.shape[1]:
        return None
    features = np.zeros((len(users), sides.users.shape[1]), np.float32)
    features[np.searchsorted(np.array(users, dtype=str), np.array(sides.profiles, dtype=str))] = sides.users
    return features


def _priors(made: Factors, profiles: np.ndarray | None) -> dict[str, np.ndarray]:
    priors = {}
    if made.item_prior is not None:
        priors["item_prior"] = made.item_prior
    if made.user_prior is not None and profiles is not None:
        priors["user_prior"] = made.user_prior
        priors["user_base"] = profiles @ made.user_prior
    return priors


def _keys(users: list[str], user_key: str | None) -> list[str]:
    return users if user_key is None else [hash_user(user, user_key) for user in users]


def save(folder: Path, trained: Trained, user_key: str | None) -> None:
    """Write ranker/ of a release, all but the blend."""
    for name, array in trained.arrays.items():
        np.save(folder / f"{name}.npy", array)
    pq.write_table(pa.table({"user": _keys(trained.users, user_key)}), folder / "users.parquet")
    trained.ranker.save_objective(folder)
