"""Seconds until the factors are as good: our factorization against implicit's ALS, on the same matrix and threads.

    python benchmarks/factorize.py shop --test-from 2011-11-10 --factors 64     a catalogue folder
    python benchmarks/factorize.py --synthetic 20 --factors 128                 20 million drawn interactions

Both run sweep by sweep; after each one nDCG@20 on held-out pairs is taken, off the clock. The mark is 99 % of the best
that implicit's better solver reaches. Needs `pip install implicit`.
"""

import argparse
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # implicit asks for it, and does its own threading
os.environ.setdefault("MKL_NUM_THREADS", "2")

import implicit
import numpy as np
import psutil
import scipy.sparse
from rich.console import Console
from rich.table import Table

from service.recommender.factors import Objective
from training.data import split
from training.data.catalogue_reader import read
from training.data.split import read_cut
from training.ranker.factorization import factorize
from training.ranker.fitting import RankerParameters, confidence_matrix

SHARE = 0.99
USERS = 2000  # who are asked
OURS = [(a0, ridge) for a0 in (0.1, 0.3, 1.0) for ridge in (0.001, 0.003, 0.01)]
THEIRS = [(alpha, ridge) for alpha in (1.0, 10.0, 40.0) for ridge in (0.1, 1.0, 10.0)]


@dataclass(frozen=True, slots=True)
class Data:
    """train: users x items; users: rows that are asked; wanted: held-out items of each."""

    train: scipy.sparse.csr_matrix
    users: np.ndarray
    wanted: list[np.ndarray]


def of_catalogue(path: Path, test_from: str | None) -> Data:
    """The last tenth of the training period is held out."""
    catalogue = read(path)
    assert catalogue.interactions is not None, "the catalogue has no interactions"
    log = split.at(catalogue.interactions, read_cut(test_from)).train
    cut = split.at(log, None)
    items = len(catalogue.items)
    matrix, ids = confidence_matrix(cut.train, items=items, parameters=RankerParameters())
    matrix.data[:] = 1
    held = split.warm(cut, items=items).sample(USERS)
    row_of = {user: row for row, user in enumerate(ids)}
    return Data(matrix, np.array([row_of[user] for user in held.users]), held.relevant)


def drawn(millions: float, *, users: int = 200_000, items: int = 100_000, seed: int = 0) -> Data:
    """Users with tastes over 32 groups of items of Zipf-like popularity; a twentieth of the pairs is held out."""
    rng = np.random.default_rng(seed)
    groups = 32
    popularity = rng.permutation(1 / (np.arange(items) + 50) ** 0.8)
    group = rng.integers(groups, size=items)
    members = [np.flatnonzero(group == g) for g in range(groups)]
    shares = [np.cumsum(popularity[m]) / popularity[m].sum() for m in members]
    activity = rng.lognormal(0, 1, users)
    counts = np.clip(activity / activity.sum() * millions * 1.13e6, 5, 5000).astype(int)
    tastes = np.cumsum(rng.dirichlet(np.full(groups, 0.15), users), axis=1).astype(np.float32)
    rows = np.repeat(np.arange(users, dtype=np.int32), counts)
    columns = np.empty(len(rows), np.int32)
    for start in range(0, len(rows), 2_000_000):
        part = slice(start, start + 2_000_000)
        chosen = (tastes[rows[part]] < rng.random(len(rows[part]), dtype=np.float32)[:, None]).sum(axis=1)
        chosen = np.minimum(chosen, groups - 1)
        point = rng.random(len(chosen))
        found = np.empty(len(chosen), np.int32)
        for g in range(groups):
            mine = chosen == g
            found[mine] = members[g][np.minimum(np.searchsorted(shares[g], point[mine]), len(members[g]) - 1)]
        columns[part] = found
    matrix = scipy.sparse.csr_matrix((np.ones(len(rows), np.float32), (rows, columns)), shape=(users, items))
    matrix.data[:] = 1
    held = rng.random(matrix.nnz) < 0.05
    asked = np.sort(rng.choice(users, USERS, replace=False))
    wanted = [
        matrix.indices[s:e][held[s:e]] for s, e in zip(matrix.indptr[asked], matrix.indptr[asked + 1], strict=True)
    ]
    kept = [at for at, w in enumerate(wanted) if len(w)]
    matrix.data[held] = 0
    matrix.eliminate_zeros()
    return Data(matrix, asked[kept], [wanted[at] for at in kept])


def ndcg(data: Data, users: np.ndarray, items: np.ndarray, k: int = 20) -> float:
    """Mean nDCG@k over the asked users, their training items left out."""
    discounts = 1 / np.log2(np.arange(2, k + 2))
    total = 0.0
    for start in range(0, len(data.users), 256):
        rows = data.users[start : start + 256]
        scores = users[rows] @ items.T
        for line, row, wanted in zip(scores, rows, data.wanted[start : start + 256], strict=True):
            line[data.train.indices[data.train.indptr[row] : data.train.indptr[row + 1]]] = -np.inf
            top = np.argpartition(-line, k)[:k]
            top = top[np.argsort(-line[top])]
            total += (np.isin(top, wanted) * discounts).sum() / discounts[: min(k, len(wanted))].sum()
    return total / len(data.users)


Trace = list[tuple[float, float]]  # seconds so far, nDCG


def ours(data: Data, factors: int, sweeps: int, a0: float, ridge: float, seed: int) -> Trace:
    """Our factorization. What compiling takes is paid before, on a matrix of one pair: it is cached on disk."""
    tiny = scipy.sparse.csr_matrix(np.ones((1, 1), np.float32))
    factorize(tiny, Objective(1, 0.1, 1), factors=factors, sweeps=1, quiet=True)
    trace: Trace = []
    clock = [time.perf_counter(), 0.0]

    def look(users: np.ndarray, items: np.ndarray) -> None:
        clock[1] += time.perf_counter() - clock[0]
        trace.append((clock[1], ndcg(data, users, items)))
        clock[0] = time.perf_counter()

    factorize(
        data.train, Objective(a0, ridge, 1.0), factors=factors, sweeps=sweeps, seed=seed, quiet=True,
        after_sweep=look,
    )  # fmt: skip
    return trace


def theirs(data: Data, factors: int, sweeps: int, alpha: float, ridge: float, seed: int, *, cg: bool) -> Trace:
    """implicit's ALS on two threads."""
    model = implicit.als.AlternatingLeastSquares(
        factors=factors, iterations=sweeps, alpha=alpha, regularization=ridge, use_cg=cg, num_threads=2, use_gpu=False,
        random_state=seed,
    )  # fmt: skip
    trace: Trace = []
    clock = [time.perf_counter(), 0.0]

    def look(iteration: int, seconds: float, *_: object) -> None:
        clock[1] += time.perf_counter() - clock[0]
        trace.append((clock[1], ndcg(data, model.user_factors, model.item_factors)))
        clock[0] = time.perf_counter()

    model.fit(data.train, show_progress=False, callback=look)
    return trace


def mean(run: Callable[..., Trace], choice: tuple[float, float], seeds: int) -> Trace:
    """The trace of a choice, averaged over seeds: one run's luck moves nDCG by more than the parameters do."""
    return [(float(s), float(r)) for s, r in np.mean([run(*choice, seed) for seed in range(seeds)], axis=0)]


def best(run: Callable[..., Trace], choices: list[tuple[float, float]]) -> tuple[float, float]:
    """The choice whose trace reaches the highest nDCG."""
    return max(choices, key=lambda choice: max(reached for _, reached in run(*choice, 0)))


def until(trace: Trace, mark: float) -> float:
    """Seconds to the mark, infinite where it is never reached."""
    return next((seconds for seconds, reached in trace if reached >= mark), float("inf"))


@contextmanager
def peak_memory() -> Iterator[list[int]]:
    """Largest resident size above the start, in bytes, sampled every 10 ms."""
    process, found, stop = psutil.Process(), [0], threading.Event()
    start = process.memory_info().rss

    def watch() -> None:
        while not stop.wait(0.01):
            found[0] = max(found[0], process.memory_info().rss - start)

    watcher = threading.Thread(target=watch)
    watcher.start()
    yield found
    stop.set()
    watcher.join()


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("catalogue", nargs="?", type=Path)
    parser.add_argument("--test-from")
    parser.add_argument("--synthetic", type=float, help="millions of interactions to draw in place of a catalogue")
    parser.add_argument("--factors", type=int, default=64)
    parser.add_argument("--sweeps", type=int, default=15)
    parser.add_argument("--seeds", type=int, default=3, help="runs that a trace is the mean of")
    parser.add_argument("--untuned", action="store_true", help="one choice of parameters each, for large data")
    given = parser.parse_args()
    if (given.catalogue is None) == (given.synthetic is None):
        parser.error("give a catalogue folder or --synthetic MILLIONS")
    data = drawn(given.synthetic) if given.synthetic else of_catalogue(given.catalogue, given.test_from)
    ours_of = lambda *choice: ours(data, given.factors, given.sweeps, *choice)  # noqa: E731
    theirs_of = lambda *choice: theirs(data, given.factors, given.sweeps, *choice, cg=True)  # noqa: E731
    mine, yours = ((0.1, 0.003), (10.0, 1.0)) if given.untuned else (best(ours_of, OURS), best(theirs_of, THEIRS))
    with peak_memory() as memory:
        traces = {"vitrine": mean(ours_of, mine, given.seeds)}
    traces["implicit, conjugate gradients"] = mean(theirs_of, yours, given.seeds)
    if not given.untuned:  # on large data it takes minutes a sweep
        direct = lambda *choice: theirs(data, given.factors, given.sweeps, *choice, cg=False)  # noqa: E731
        traces["implicit, cholesky"] = mean(direct, yours, given.seeds)
    peers = [name for name in traces if name != "vitrine"]
    mark = SHARE * max(reached for name in peers for _, reached in traces[name])
    fastest = min(until(traces[name], mark) for name in peers)
    table = Table(
        "",
        "seconds to the mark",
        "sweep",
        "best nDCG@20",
        "ratio",
        title=f"nDCG@20 of {mark:.4f}, {given.factors} factors",
    )
    for name, trace in traces.items():
        seconds = until(trace, mark)
        table.add_row(
            name, f"{seconds:.2f}", f"{trace[-1][0] / len(trace):.2f} s", f"{max(r for _, r in trace):.4f}",
            f"{seconds / fastest:.2f}",
        )  # fmt: skip
    console = Console()
    console.print(table)
    size = data.train.nnz * 8 + sum(data.train.shape) * given.factors * 4
    console.print(f"parameters: ours {mine}, implicit's {yours}; {data.train.nnz} pairs, {data.train.shape}")
    console.print(f"memory above the start: {memory[0] / 2**20:.0f} MiB, {memory[0] / size:.2f} of data and factors")


if __name__ == "__main__":
    main()
