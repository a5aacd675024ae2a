"""(shopper, items) -> scores: factors, fold-in of new shoppers, and the short sum of named terms."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

DEFAULT_USER_KEY = "vitrine"
TIERS = ("ranked", "visual", "taste", "popular")


@dataclass(frozen=True, slots=True)
class Objective:
    """The constants of the factorization (Rendle et al., 2021) that fold-in needs as well.

    unobserved: weight a0 of every pair that was not observed; regularisation: lambda;
    frequency: exponent nu by which lambda grows with the number of a row's observations."""

    unobserved: float
    regularisation: float
    frequency: float

    def ridge(self, observations: np.ndarray, others: int) -> np.ndarray:
        """lambda of each row. observations: (n,) counts; others: number of columns -> (n,)."""
        return self.regularisation * (observations + self.unobserved * others) ** self.frequency


@dataclass(frozen=True, slots=True)
class Shopper:
    """What is known about who asks. factor: (factors,); history: item rows they liked, latest last;
    seen: item rows that are no news to them (the history, and what they dismissed)."""

    factor: np.ndarray
    history: np.ndarray
    seen: np.ndarray


@dataclass(frozen=True, slots=True)
class Blend:
    """The learned sum: tier -> term -> weight. The terms are listed in service/pipeline.py."""

    tiers: Mapping[str, Mapping[str, float]]

    @classmethod
    def open(cls, path: Path) -> "Blend":
        """Open blend.json of a release."""
        return cls(json.loads(path.read_text())["tiers"])

    def save(self, path: Path) -> None:
        """Write blend.json."""
        tiers = {tier: dict(weights) for tier, weights in self.tiers.items()}
        path.write_text(json.dumps({"tiers": tiers}, indent=1))


class Ranker:
    """The factorization of one release.

    item_factors: (items, factors) float32, zero for items that nobody touched; user_factors: (users, factors)
    float32; gramian: (factors, factors), the sum of v v' over touched items; history in CSR form:
    user u touched items[indptr[u]:indptr[u + 1]] in the order of time, confidence[...] beside each.
    """

    def __init__(
        self, item_factors: np.ndarray, user_factors: np.ndarray, gramian: np.ndarray, users: Mapping[str, int],
        indptr: np.ndarray, items: np.ndarray, confidence: np.ndarray, objective: Objective, touched: int,
    ) -> None:  # fmt: skip
        self.item_factors = item_factors
        self.user_factors = user_factors
        self.gramian = gramian
        self.objective = objective
        self.touched = touched
        self._users = users
        self._indptr, self._items, self._confidence = indptr, items, confidence

    @classmethod
    def open(cls, folder: Path) -> "Ranker":
        """Open ranker/ of a release; arrays stay memory-mapped."""

        def array(name: str) -> np.ndarray:
            loaded: np.ndarray = np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
            return loaded

        keys = pq.read_table(folder / "users.parquet")["user"].to_pylist()
        constants = json.loads((folder / "objective.json").read_text())
        touched = constants.pop("touched")
        return cls(
            array("item_factors"), array("user_factors"), np.array(array("gramian")),
            {key: row for row, key in enumerate(keys)},
            array("history_indptr"), array("history_items"), array("history_confidence"),
            Objective(**constants), touched,
        )  # fmt: skip

    def save_objective(self, folder: Path) -> None:
        """Write objective.json beside the arrays."""
        (folder / "objective.json").write_text(
            json.dumps({**asdict(self.objective), "touched": self.touched}, indent=1)
        )

    @property
    def users(self) -> int:
        """How many shoppers have factors."""
        return len(self._users)

    def user_row(self, user_key: str) -> int | None:
        """Row of a shopper by keyed hash (`hash_user`), or None."""
        return self._users.get(user_key)

    def shopper(self, row: int) -> Shopper:
        """A shopper of the training data."""
        history = self._history(row)
        return Shopper(np.asarray(self.user_factors[row]), history, history)

    def shopper_with_events(self, row: int | None, items: np.ndarray, weights: np.ndarray) -> Shopper:
        """A shopper folded in from events, after what training knew of them if anything.

        items: (e,) item rows in the order of time; weights: (e,) confidence of each, 0 for a dismissal."""
        before, believed = np.empty(0, np.int64), np.empty(0, np.float32)
        if row is not None:
            before, believed = self._history(row), self._confidence[self._indptr[row] : self._indptr[row + 1]]
        history, confidence = np.concatenate([before, items]), np.concatenate([believed, weights])
        # the latest mention of an item places it, its strongest confidence counts
        unique, last = np.unique(history[::-1], return_index=True)
        strongest = np.zeros(len(unique), np.float32)
        np.maximum.at(strongest, np.searchsorted(unique, history), confidence)
        order = np.argsort(-last, kind="stable")
        order = order[strongest[order] > 0]
        liked = unique[order]
        return Shopper(self.fold_in(liked, strongest[order]), liked, unique)

    def fold_in(self, items: np.ndarray, confidence: np.ndarray) -> np.ndarray:
        """The user factor that minimises the objective with item factors held (Hu et al., 2008, eq. 4).

        items: (e,) rows, distinct; confidence: (e,) -> (factors,) float32. One solve of factors x factors."""
        factors = self.item_factors[items]
        ridge = self.objective.ridge(np.array([len(items)]), self.touched)[0]
        weighted = factors * confidence[:, None]
        system = self.objective.unobserved * self.gramian + weighted.T @ factors
        system[np.diag_indices_from(system)] += ridge
        solution: np.ndarray = np.linalg.solve(system, weighted.sum(axis=0))
        return solution.astype(np.float32)

    def scores(self, shopper: Shopper, rows: np.ndarray) -> np.ndarray:
        """Factor scores of these items: (n,) float32."""
        found: np.ndarray = self.item_factors[rows] @ shopper.factor
        return found

    def top(self, shopper: Shopper, *, k: int, allowed: np.ndarray | None = None) -> np.ndarray:
        """Rows of the k items with the largest factor scores among the allowed (maximum inner product, exact)."""
        scores = self.item_factors @ shopper.factor
        if allowed is not None:
            scores = np.where(allowed, scores, -np.inf)
        k = min(k, len(scores))
        best = np.argpartition(-scores, k - 1)[:k]
        found: np.ndarray = best[np.isfinite(scores[best])]
        return found

    def _history(self, row: int) -> np.ndarray:
        return np.asarray(self._items[self._indptr[row] : self._indptr[row + 1]], dtype=np.int64)


def hash_user(user_id: str, key: str) -> str:
    """The name under which a release knows a shopper: BLAKE2b keyed by the deployment's secret."""
    return hashlib.blake2b(user_id.encode(), key=_key(key), digest_size=16).hexdigest()


def key_check(key: str) -> str:
    """A short digest by which a release tells whether it was made with this key, without giving it away."""
    return hashlib.blake2b(b"which key is this?", key=_key(key), digest_size=6).hexdigest()


def _key(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


def diversify(scores: np.ndarray, vectors: np.ndarray, *, k: int, diversity: float) -> np.ndarray:
    """Maximal marginal relevance (Carbonell and Goldstein, 1998).

    scores: (n,), best first; vectors: (n, d) unit length, zero where unknown -> positions: (k,) in the order chosen.
    Scores and likenesses are brought to 0..1 first, so that diversity 0.5 weighs both alike in every catalogue."""
    relevance, likeness = _to_unit_range(scores), _to_unit_range(vectors @ vectors.T)
    chosen: list[int] = []
    nearest = np.zeros(len(scores))
    left = np.ones(len(scores), dtype=bool)
    for _ in range(min(k, len(scores))):
        value = np.where(left, (1 - diversity) * relevance - diversity * nearest, -np.inf)
        best = int(np.argmax(value))
        chosen.append(best)
        left[best] = False
        nearest = np.maximum(nearest, likeness[best])
    return np.array(chosen, dtype=np.int64)


def _to_unit_range(values: np.ndarray) -> np.ndarray:
    spread = values.max() - values.min()
    return (values - values.min()) / spread if spread > 0 else np.zeros_like(values)


EVENT_WEIGHTS: Mapping[str, float] = {"view": 1.0, "like": 2.0, "cart": 3.0, "purchase": 4.0}


def event_weights(events: Sequence[str]) -> np.ndarray:
    """Confidence of each event by its type; an unnamed or unknown type counts as a view. 0 for a dismissal."""
    weights = [0.0 if event == "dismiss" else EVENT_WEIGHTS.get(event, 1.0) for event in events]
    return np.array(weights, dtype=np.float32)
