"""What a release costs: how long it takes, and how much memory."""

import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from service.errors import ReleaseError
from service.recommender.pipeline import Recommender
from service.recommender.query import Query
from training.evaluation.held_out_questions import (
    HeldOutQuestions,
)
from training.measures import median_interval
from training.promotion.gate_checks import Check

TIMED = 60  # queries
FEWEST_TURNS, MOST_TURNS = 2, 12  # of the timed ones


def of_cost(
    recommenders: Sequence[Recommender], folders: Sequence[Path], questions: HeldOutQuestions, asked: dict[str, float]
) -> Iterator[Check]:
    sizes = [float(sum(file["bytes"] for file in each.release.manifest.files.values())) for each in recommenders]
    yield _latency(recommenders, questions.queries(TIMED), asked["most_latency"])
    figures = {
        "memory, MB": ([_memory(folder) / 2**20 for folder in folders], asked["most_memory"]),
        "size, MB": ([size / 2**20 for size in sizes], asked["most_size"]),
    }
    for name, (values, most) in figures.items():
        first = len(values) < 2
        bound = f"at most {most:g} x production's"
        passed = None if first else values[0] <= most * values[1]
        note = "" if first else f"{values[0] / values[1]:.2f} x"
        yield Check(name, passed, values[0], None if first else values[1], bound, note=note)
    most = asked["largest_megabytes"]
    yield Check("size in all, MB", sizes[0] / 2**20 <= most, sizes[0] / 2**20, None, f"at most {most:g}")


def _latency(recommenders: Sequence[Recommender], queries: Sequence[Query], most: float) -> Check:
    """Median milliseconds of a query. Both releases answer each query in turn, first one and then the other first, and
    what is judged is the ratio of the two: something else that runs on the machine slows both. It is repeated until the
    interval of the median ratio lies on one side of the bound; one that never does refuses nobody."""
    name, bound = "latency, median ms", f"at most {most:g} x production's"
    for query in queries[:5]:  # what is loaded once
        for recommender in recommenders:
            recommender.recommend([query])
    took: list[list[float]] = [[] for _ in recommenders]
    for turn in range(MOST_TURNS):
        for query in queries:
            pairs = list(zip(took, recommenders, strict=True))
            for times, recommender in pairs if turn % 2 else pairs[::-1]:
                began = time.perf_counter()
                recommender.recommend([query])
                times.append(1000 * (time.perf_counter() - began))
        if len(recommenders) < 2:
            return Check(name, None, statistics.median(took[0]), None, bound)
        ratios = np.array(took[0]) / np.array(took[1])
        ends = median_interval(ratios)
        if turn + 1 >= FEWEST_TURNS and not ends[0] <= most <= ends[1]:
            break
    value, production = (statistics.median(times) for times in took)
    note = f"{float(np.median(ratios)):.2f} x, {ends[0]:.2f} to {ends[1]:.2f}, of {len(ratios)} pairs"
    return Check(name, ends[0] <= most, value, production, bound, note=note)


def _memory(folder: Path) -> float:
    command = [sys.executable, "-m", "training.packaging.footprint", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ReleaseError(f"{folder} cannot be opened in a process of its own: {done.stderr.strip()[-500:]}")
    return float(done.stdout)
