"""What scoring costs: the terms of 500 candidates, their order, and the reasons of the first ten.

    python benchmarks/scoring.py releases/1

For one user, and for 256 at once; milliseconds of CPU on one thread. Beside it the same candidates scored by a plain
product of factors, which is what a ranker without terms and reasons does.
"""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import sys
import time
from collections.abc import Callable

import numpy as np
from rich.console import Console
from rich.table import Table

from service.recommender.candidates import KIND_VOTERS
from service.recommender.release import Release
from service.recommender.scoring.explanations import because
from service.recommender.scoring.terms import Sources, best, blend, log_price, scaled_popularity, term_values, vote

CANDIDATES, USERS, ANSWERS = 500, 256, 10


def cpu(work: Callable[[], object], *, runs: int) -> float:
    """Milliseconds of CPU of one run, the best of five rounds."""
    work()
    rounds = []
    for _ in range(5):
        started = time.process_time()
        for _ in range(runs):
            work()
        rounds.append((time.process_time() - started) / runs * 1000)
    return min(rounds)


def main(path: str) -> None:
    """Print one table."""
    release = Release.open(path)
    items = release.items
    assert release.ranker is not None, "the release has no ranker"
    ranker = release.ranker
    prices = log_price(items.numbers("price"))
    kinds = items.categories()
    sources = Sources(release.index, ranker, scaled_popularity(items.popularity), prices, kinds=kinds)
    rng = np.random.default_rng(0)
    shoppers = [ranker.user(int(row)) for row in rng.integers(ranker.users, size=USERS)]
    count = min(CANDIDATES, len(items))
    rows = [np.sort(rng.permutation(len(items))[:count]) for _ in shoppers]
    pictured = release.index is not None
    photos = [release.index.vectors(release.index.rows[:1])[0] if release.index is not None else None] * USERS
    votes = [None] * USERS
    if release.index is not None:
        near, cosines = release.index.search(release.index.vectors(release.index.rows[:1]), k=KIND_VOTERS)
        votes = [vote(kinds, near[0], cosines[0])] * USERS
    weights = release.blend.tiers["ranked" if pictured else "taste"]

    def rank(many: int) -> list[list[list[int]]]:
        values = term_values(sources, rows[:many], photos[:many], shoppers[:many], votes[:many])
        scores = [blend(each, weights)[1].sum(axis=1) for each in values]
        chosen = [row[best(score, ANSWERS)] for row, score in zip(rows, scores, strict=False)]
        return because(sources, chosen, shoppers[:many])

    def plain(many: int) -> None:
        for at in range(many):
            best(ranker.item_factors[rows[at]] @ shoppers[at].factor, ANSWERS)

    table = Table("", "ms a user", "plain product", "ratio", title=f"{count} candidates, {items.ids.__len__()} items")
    for many, runs in ((1, 300), (USERS, 5)):
        ours, theirs = cpu(lambda n=many: rank(n), runs=runs) / many, cpu(lambda n=many: plain(n), runs=runs) / many
        table.add_row(f"{many} at once", f"{ours:.3f}", f"{theirs:.3f}", f"{ours / theirs:.1f}")
    history = np.mean([len(user.history) for user in shoppers])
    Console().print(table)
    events = np.arange(min(100, len(items)))
    fold = cpu(lambda: ranker.fold_in(events, np.ones(len(events), np.float32)), runs=300)
    Console().print(
        f"past items of a user: {history:.0f}; {ranker.item_factors.shape[1]} factors; "
        f"fold-in of {len(events)} events: {fold:.3f} ms"
    )


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "releases/1")
