"""Factorize the interactions: implicit alternating least squares (Hu et al., 2008; Rendle et al., 2021)."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import scipy.sparse
import torch

from service.ranker import Objective, Ranker, event_weights, hash_user
from training.progress import track

BLOCK_ELEMENTS = 24_000_000  # floats of gathered factors at a time: about 100 MB


@dataclass(frozen=True, slots=True)
class RankerParameters:
    """How to factorize. The regularisation grows with a row's observations (`Objective`)."""

    factors: int = 64
    sweeps: int = 12
    unobserved: float = 1.0
    regularisation: float = 0.003
    frequency: float = 1.0
    event_confidence: float = 0.25
    seed: int = 0

    @property
    def objective(self) -> Objective:
        """What serving needs to fold shoppers in."""
        return Objective(self.unobserved, self.regularisation, self.frequency)


def confidence_matrix(
    interactions: pd.DataFrame, *, items: int, event_confidence: float
) -> tuple[scipy.sparse.csr_matrix, list[str]]:
    """users x items, float32: 1 for a touched pair, more by `event_confidence` for each step up in its strongest
    event (view < like < cart < purchase). -> matrix, and user ids in the order of its rows."""
    ids, rows = np.unique(interactions["user_id"].to_numpy(dtype=str), return_inverse=True)
    names, codes = np.unique(interactions["event"].to_numpy(dtype=str), return_inverse=True)
    steps = event_weights(list(names))[codes]
    strength = np.where(steps > 0, 1 + event_confidence * (steps - 1), 0).astype(np.float32)
    pairs = pd.DataFrame({"user": rows, "item": interactions["item"], "strength": strength})
    strongest = pairs.groupby(["user", "item"], sort=True)["strength"].max()
    strongest = strongest[strongest > 0]
    users, touched = (strongest.index.get_level_values(level).to_numpy() for level in (0, 1))
    matrix = scipy.sparse.csr_matrix((strongest.to_numpy(), (users, touched)), shape=(len(ids), items))
    return matrix, list(ids)


def factorize(
    matrix: scipy.sparse.csr_matrix, parameters: RankerParameters, *, quiet: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """matrix: users x items, confidences -> user factors (users, factors), item factors (items, factors), float32.

    Items that nobody touched get zero factors."""
    generator = torch.Generator().manual_seed(parameters.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    sides = [_Side(matrix, parameters.objective, device), _Side(matrix.T.tocsr(), parameters.objective, device)]
    touched = torch.from_numpy(np.asarray(matrix.getnnz(axis=0) > 0)).to(device)
    items = torch.randn(matrix.shape[1], parameters.factors, generator=generator).to(device)
    items *= 0.1 / parameters.factors**0.5 * touched[:, None]
    users = torch.zeros(matrix.shape[0], parameters.factors, device=device)
    for _ in range(parameters.sweeps) if quiet else track(range(parameters.sweeps), "factorizing interactions"):
        users = sides[0].solve(items, users)
        items = sides[1].solve(users, items)
    users = sides[0].solve(items, users)  # so that the stored user factors are the fold-in of their own histories
    return users.cpu().numpy(), items.cpu().numpy()


class _Side:
    """One half-sweep: all rows of a matrix solved against fixed columns, in blocks of rows of like length."""

    def __init__(self, matrix: scipy.sparse.csr_matrix, objective: Objective, device: torch.device) -> None:
        self.device = device
        self.unobserved = objective.unobserved
        self.lengths = np.diff(matrix.indptr)
        self.indptr = matrix.indptr
        self.columns = torch.from_numpy(matrix.indices.astype(np.int64))
        self.confidence = torch.from_numpy(matrix.data.astype(np.float32))
        others = int((matrix.getnnz(axis=0) > 0).sum())
        self.ridge = torch.from_numpy(objective.ridge(self.lengths, others).astype(np.float32)).to(device)
        # longest first; rows without observations are zero and need no solving
        self.order = np.argsort(-self.lengths, kind="stable")[: int((self.lengths > 0).sum())]

    def solve(self, fixed: torch.Tensor, shape_of: torch.Tensor) -> torch.Tensor:
        """fixed: (columns, factors) -> (rows, factors)."""
        solved = torch.zeros_like(shape_of)
        gramian = self.unobserved * fixed.T @ fixed
        start = 0
        while start < len(self.order):
            longest = int(self.lengths[self.order[start]])
            count = max(1, BLOCK_ELEMENTS // (longest * fixed.shape[1] + fixed.shape[1] ** 2))
            rows = self.order[start : start + count]
            solved[torch.from_numpy(rows).to(self.device)] = self._solve_block(rows, longest, fixed, gramian)
            start += count
        return solved

    def _solve_block(self, rows: np.ndarray, longest: int, fixed: torch.Tensor, gramian: torch.Tensor) -> torch.Tensor:
        position = torch.from_numpy(self.indptr[rows].astype(np.int64))[:, None] + torch.arange(longest)
        inside = torch.arange(longest) < torch.from_numpy(self.lengths[rows].astype(np.int64))[:, None]
        position = torch.where(inside, position, 0)
        confidence = torch.where(inside, self.confidence[position], 0.0).to(self.device)
        gathered = fixed[self.columns[position].to(self.device)]
        weighted = gathered * confidence[:, :, None]
        system = gramian + weighted.transpose(1, 2) @ gathered
        system.diagonal(dim1=1, dim2=2).add_(self.ridge[torch.from_numpy(rows).to(self.device)][:, None])
        factor = torch.linalg.cholesky(system)
        return torch.cholesky_solve(weighted.sum(dim=1)[:, :, None], factor)[:, :, 0]


def history_of(interactions: pd.DataFrame, matrix: scipy.sparse.csr_matrix, users: list[str]) -> tuple[np.ndarray, ...]:
    """CSR arrays of who touched what, each user's items in the order of their last touch.

    -> indptr (users + 1,) int64, items int32, confidence float32, times int64 (seconds)."""
    row_of = pd.Series(np.arange(len(users)), index=users)
    last = pd.DataFrame(
        {"user": row_of[interactions["user_id"]].to_numpy(), "item": interactions["item"].to_numpy(),
         "time": interactions["timestamp"].to_numpy()}
    ).groupby(["user", "item"], sort=True)["time"].max()  # fmt: skip
    coo = matrix.tocoo()
    pairs = pd.MultiIndex.from_arrays([coo.row, coo.col])
    table = pd.DataFrame({"user": coo.row, "item": coo.col, "confidence": coo.data, "time": last.loc[pairs].to_numpy()})
    table = table.sort_values(["user", "time", "item"], kind="stable")
    indptr = np.concatenate([[0], np.cumsum(np.bincount(table["user"], minlength=len(users)))]).astype(np.int64)
    return (
        indptr, table["item"].to_numpy(np.int32), table["confidence"].to_numpy(np.float32),
        table["time"].to_numpy(np.int64),
    )  # fmt: skip


def train(
    interactions: pd.DataFrame, *, items: int, parameters: RankerParameters, user_key: str, quiet: bool = False
) -> tuple[Ranker, dict[str, np.ndarray], list[str]]:
    """Factorize -> the ranker, its arrays by file name, and the user ids of its rows."""
    matrix, users = confidence_matrix(interactions, items=items, event_confidence=parameters.event_confidence)
    user_factors, item_factors = factorize(matrix, parameters, quiet=quiet)
    indptr, history, confidence, times = history_of(interactions, matrix, users)
    touched = int((matrix.getnnz(axis=0) > 0).sum())
    gramian = item_factors.T @ item_factors
    keys = {hash_user(user, user_key): row for row, user in enumerate(users)}
    ranker = Ranker(
        item_factors, user_factors, gramian, keys, indptr, history, confidence, parameters.objective, touched
    )
    arrays = {
        "item_factors": item_factors, "user_factors": user_factors, "gramian": gramian, "history_indptr": indptr,
        "history_items": history, "history_confidence": confidence, "history_times": times,
    }  # fmt: skip
    return ranker, arrays, users


def save(folder: Path, ranker: Ranker, arrays: dict[str, np.ndarray], users: list[str], user_key: str) -> None:
    """Write ranker/ of a release, all but the blend."""
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    pq.write_table(pa.table({"user": [hash_user(user, user_key) for user in users]}), folder / "users.parquet")
    ranker.save_objective(folder)
