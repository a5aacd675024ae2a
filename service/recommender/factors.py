"""The factorization: what it knows of items and users, and the fold-in of a user whom it does not know."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from service.recommender.changes.growing import Growing
from service.recommender.index.grouped_rows import places

DISMISS = "dismiss"
EVENT_CONFIDENCES: Mapping[str, float] = {"view": 1.0, "like": 1.25, "cart": 1.5, "purchase": 1.75, DISMISS: 1.0}


@dataclass(frozen=True, slots=True)
class Objective:
    """The constants of the factorization (Rendle et al., 2021) that fold-in needs as well.

    unobserved: weight a0 of every pair that was not observed; regularisation: lambda;
    frequency: exponent nu by which lambda grows with the number of a row's observations;
    confidences: weight of a pair by its strongest event, and of a dismissal, whose target is 0 in place of 1."""

    unobserved: float
    regularisation: float
    frequency: float
    confidences: Mapping[str, float] = field(default_factory=lambda: EVENT_CONFIDENCES)

    def ridge(self, observations: np.ndarray, others: int) -> np.ndarray:
        """lambda of each row. observations: (n,) counts; others: number of columns -> (n,)."""
        return self.regularisation * (observations + self.unobserved * others) ** self.frequency

    def confidence(self, events: Sequence[str]) -> np.ndarray:
        """(n,) names of events -> (n,) float32, negative for a dismissal; an unknown event counts as a view."""
        sign = {DISMISS: -1.0}
        values = [sign.get(event, 1.0) * self.confidences.get(event, self.confidences["view"]) for event in events]
        return np.array(values, dtype=np.float32)


@dataclass(frozen=True, slots=True)
class User:
    """What is known about who asks. factor: (factors,); history: item rows they liked, latest last;
    seen: item rows that are no news to them (the history, and what they dismissed); row: of training, if any;
    photos: (p, dim) unit vectors of photos that they sent before, latest last, or None."""

    factor: np.ndarray
    history: np.ndarray
    seen: np.ndarray
    row: int | None = None
    photos: np.ndarray | None = None


@dataclass(frozen=True, slots=True)
class Neighbours:
    """A sparse matrix of items by items, a few of the largest weights in each row. In CSR form: indptr (items + 1,),
    items and weights (n,)."""

    indptr: np.ndarray
    items: np.ndarray
    weights: np.ndarray

    def of(self, row: int) -> tuple[np.ndarray, np.ndarray]:
        """The neighbours of an item and their weights, none of one that came since. -> (n,) rows, (n,)."""
        if row >= len(self.indptr) - 1:
            return self.items[:0], self.weights[:0]
        place = slice(self.indptr[row], self.indptr[row + 1])
        return self.items[place], self.weights[place]

    def total(self, rows: np.ndarray, shares: np.ndarray, items: int) -> np.ndarray:
        """The weights of all items beside these, each of which counts its share: (items,) float64.

        items: how many there are, with those that came since."""
        known = rows < len(self.indptr) - 1
        if not known.all():
            rows, shares = rows[known], shares[known]
        lengths = self.indptr[rows + 1] - self.indptr[rows]
        at = places(self.indptr[rows], lengths)
        weights = self.weights[at] * np.repeat(shares, lengths)
        return np.bincount(self.items[at], weights, minlength=items)


class Ranker:
    """The factorization of one release.

    item_factors: (items, factors) float32, the prior of their features for items that nobody touched, zero where
    there is none; user_factors: (users, factors) float32; gramian: (factors, factors), the sum of v v' over touched
    items; history in CSR form: user u touched items[indptr[u]:indptr[u + 1]] in the order of time, confidence[...]
    beside each, negative for a dismissal. user_base: (users, factors), the prior of each profile, or None;
    trend: (items,) how much more of late than before, or None;
    together: what is touched on the same occasions as each item; item_to_item: what those touch who touched it
    (training/ranker/item_neighbours.py); each None where it was not looked for.
    """

    def __init__(
        self,
        item_factors: np.ndarray,
        user_factors: np.ndarray,
        gramian: np.ndarray,
        users: Mapping[str, int],
        indptr: np.ndarray,
        items: np.ndarray,
        confidence: np.ndarray,
        objective: Objective,
        touched: int,
        *,
        user_base: np.ndarray | None = None,
        trend: np.ndarray | None = None,
        together: Neighbours | None = None,
        item_to_item: Neighbours | None = None,
    ) -> None:
        self.together, self.item_to_item = together, item_to_item
        self.item_factors = item_factors
        self.user_factors = user_factors
        self.gramian = gramian
        self.objective = objective
        self.touched = touched
        self.user_base = user_base
        self._trend = Growing(np.zeros(len(item_factors), np.float32) if trend is None else np.array(trend))
        self._inverse_lengths = Growing(_inverse_lengths(item_factors))
        self._new = Growing(item_factors[:0])  # factors of items that came since
        self._users = users
        self._indptr, self._items, self._confidence = indptr, items, confidence

    @classmethod
    def open(cls, folder: Path) -> "Ranker":
        """Open ranker/ of a release; arrays stay memory-mapped."""

        def array(name: str) -> np.ndarray:
            # a plain view of the map: indexing a memmap object costs more than the reading
            return np.asarray(np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False))

        def array_if_any(name: str) -> np.ndarray | None:
            return array(name) if (folder / f"{name}.npy").exists() else None

        def neighbours(name: str) -> Neighbours | None:
            parts = [array_if_any(f"{name}_{part}") for part in ("indptr", "items", "weights")]
            indptr, items, weights = parts
            return None if indptr is None or items is None or weights is None else Neighbours(indptr, items, weights)

        keys = pq.ParquetFile(folder / "users.parquet").read()["user"].to_pylist()
        constants = json.loads((folder / "objective.json").read_text())
        touched = constants.pop("touched")
        return cls(
            array("item_factors"),
            array("user_factors"),
            np.array(array("gramian")),
            {key: row for row, key in enumerate(keys)},
            array("history_indptr"),
            array("history_items"),
            array("history_confidence"),
            Objective(**constants),
            touched,
            user_base=array_if_any("user_base"),
            trend=array_if_any("trend"),
            together=neighbours("together"),
            item_to_item=neighbours("item_to_item"),
        )

    def save_objective(self, folder: Path) -> None:
        """Write objective.json beside the arrays."""
        constants = {**asdict(self.objective), "confidences": dict(self.objective.confidences)}
        (folder / "objective.json").write_text(json.dumps({**constants, "touched": self.touched}, indent=1))

    @property
    def items(self) -> int:
        """How many items there are, with those that came since."""
        return len(self.item_factors) + len(self._new)

    @property
    def trend(self) -> np.ndarray:
        """(items,) float32: how much more each is touched of late than before."""
        return self._trend.array

    @property
    def inverse_lengths(self) -> np.ndarray:
        """(items,) float32: 1 / the length of each one's factor."""
        return self._inverse_lengths.array

    def factors_of(self, rows: np.ndarray) -> np.ndarray:
        """The factors of these items, also of those that came since: (n,) -> (n, factors) float32."""
        sealed = len(self.item_factors)
        if not len(self._new):
            found: np.ndarray = self.item_factors.take(rows, axis=0)
            return found
        found = self.item_factors.take(np.minimum(rows, sealed - 1), axis=0)
        new = rows >= sealed
        found[new] = self._new.array[rows[new] - sealed]
        return found

    def put(self, row: int, factor: np.ndarray) -> None:
        """Give an item that came since its factor, (factors,); the row of one that comes now is `items`."""
        sealed = len(self.item_factors)
        for column in (self._trend, self._inverse_lengths):
            column.extend_to(row + 1, 0)
        self._new.extend_to(row - sealed + 1, 0)
        self._new.array[row - sealed] = factor
        self._inverse_lengths.array[row] = _inverse_lengths(factor[None])[0]

    @property
    def users(self) -> int:
        """How many users have factors."""
        return len(self._users)

    @property
    def user_keys(self) -> list[str]:
        """The keyed hash of each, in the order of rows."""
        return list(self._users)

    def user_row(self, user_key: str) -> int | None:
        """Row of a user by keyed hash (`hash_user`), or None."""
        return self._users.get(user_key)

    def user(self, row: int) -> User:
        """A user of the training data."""
        seen, confidence = self._history(row)
        return User(np.asarray(self.user_factors[row]), seen[confidence > 0], seen, row)

    def user_with_events(self, row: int | None, items: np.ndarray, confidence: np.ndarray) -> User:
        """A user folded in from events, after what training knew of them if anything.

        items: (e,) item rows in the order of time; confidence: (e,), negative for a dismissal."""
        base = None
        if row is not None:
            before, believed = self._history(row)
            items, confidence = np.concatenate([before, items]), np.concatenate([believed, confidence])
            base = None if self.user_base is None else np.asarray(self.user_base[row])
        seen, strength = last_event_of_each(items, confidence)
        return User(self.fold_in(seen, strength, base), seen[strength > 0], seen, row)

    def fold_in(self, items: np.ndarray, confidence: np.ndarray, base: np.ndarray | None = None) -> np.ndarray:
        """The user factor that minimises the objective with item factors held (Hu et al., 2008, eq. 4).

        items: (e,) rows, distinct; confidence: (e,), negative where the target is 0; base: (factors,) the prior of
        the profile, or None -> (factors,) float32. One solve of factors x factors."""
        factors = self.factors_of(items)
        ridge = self.objective.ridge(np.array([len(items)]), self.touched)[0]
        system = self.objective.unobserved * self.gramian + (factors * np.abs(confidence)[:, None]).T @ factors
        system[np.diag_indices_from(system)] += ridge
        wanted = np.maximum(confidence, 0) @ factors
        if base is not None:
            wanted = wanted + ridge * base
        solution: np.ndarray = np.linalg.solve(system, wanted)
        return solution.astype(np.float32)

    def scores(self, user: User, rows: np.ndarray) -> np.ndarray:
        """Factor scores of these items: (n,) float32."""
        found: np.ndarray = self.factors_of(rows) @ user.factor
        return found

    def top(self, user: User, *, k: int, allowed: np.ndarray | None = None) -> np.ndarray:
        """Rows of the k items with the largest factor scores among the allowed (maximum inner product, exact)."""
        scores = self.item_factors @ user.factor
        if len(self._new):
            scores = np.concatenate([scores, self._new.array @ user.factor])
        if allowed is not None:
            scores = np.where(allowed, scores, -np.inf)
        k = min(k, len(scores))
        best = np.argpartition(-scores, k - 1)[:k]
        found: np.ndarray = best[np.isfinite(scores[best])]
        return found

    def _history(self, row: int) -> tuple[np.ndarray, np.ndarray]:
        place = slice(self._indptr[row], self._indptr[row + 1])
        return np.asarray(self._items[place], dtype=np.int64), np.asarray(self._confidence[place])


def _inverse_lengths(factors: np.ndarray) -> np.ndarray:
    found: np.ndarray = 1 / np.maximum(np.linalg.norm(factors, axis=1), 1e-9).astype(np.float32)
    return found


def last_event_of_each(items: np.ndarray, confidence: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each item once, in the order of its last event, with what that says of it: dismissed, where the last event is
    a dismissal, else liked, by the strongest event. (e,), (e,) -> distinct items, confidences."""
    unique, inverse = np.unique(items, return_inverse=True)
    last = np.zeros(len(unique), np.int64)
    np.maximum.at(last, inverse, np.arange(len(items)))
    strongest = np.zeros(len(unique), np.float32)
    np.maximum.at(strongest, inverse, confidence)
    words = np.where(confidence[last] < 0, confidence[last], strongest)
    order = np.argsort(last, kind="stable")
    return unique[order].astype(np.int64), words[order].astype(np.float32)
