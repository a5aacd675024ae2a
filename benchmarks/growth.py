"""How the index grows: building, file, opening, one query, memory, from 10,000 items on.

    python benchmarks/growth.py --work FOLDER

The vectors are those of ann.py, and each size is built and opened in a process of its own, with one thread; indexes
that ann.py left in --work are used. A query is one call of Index.search, by CPU time, the median of 300:
the ten nearest, and 500 as the pipeline asks for. Memory is the growth of the process after those queries.

Writes benchmarks/results/growth.json and .md.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parents[1]))

import faiss
import numpy as np
import psutil
from ann import QUERIES, RESULTS, alone
from clustered import draw

from service.recommender.index.vector_index import EXACT_BELOW, Index, build
from training.index.embedding import RECALL, tune_search

SIZES = (10_000, 100_000, 1_000_000, 3_000_000)


def construct(folder: Path, items: int) -> dict[str, Any]:
    """Build the index of so many items, and choose how far to search it."""
    faiss.omp_set_num_threads(1)
    vectors, queries = draw(items, QUERIES)
    np.save(folder / "queries.npy", queries)
    path, facts = folder / "vitrine.index", folder / "vitrine.json"
    if not facts.exists():
        started = time.process_time()
        faiss.write_index(build(vectors), str(path))
        facts.write_text(json.dumps({"build_s": time.process_time() - started}))
    index = Index.open(path, np.arange(items), items=items)
    reached = 1.0
    if items >= EXACT_BELOW:
        reached = tune_search(index, vectors, asked=RECALL, rng=np.random.default_rng(0))
    return json.loads(facts.read_text()) | {"items": items, "ef_search": index.ef_search, "recall": reached}


def serve(folder: Path, built: dict[str, Any]) -> dict[str, Any]:
    """Open, and ask."""
    faiss.omp_set_num_threads(1)
    queries, path, items = np.load(folder / "queries.npy"), folder / "vitrine.index", built["items"]
    process = psutil.Process()
    before, started = process.memory_info().rss, time.perf_counter()
    index = Index.open(path, np.arange(items), items=items, ef_search=built["ef_search"])
    opening = time.perf_counter() - started
    found: dict[str, Any] = {"file_mb": path.stat().st_size / 1e6, "opening_s": opening}
    for k in (10, 500):
        seconds = []
        for query in queries[-600:]:  # half of them to warm up
            started = time.process_time()
            index.search(query[None], k=k)
            seconds.append(time.process_time() - started)
        found[f"k{k}_ms"] = float(np.median(seconds[300:])) * 1000
    return built | found | {"memory_mb": (process.memory_info().rss - before) / 1e6}


def written(rows: list[dict[str, Any]]) -> str:
    """The table, in markdown."""
    lines = [
        "| items | build s of CPU | file MB | opening s | efSearch | recall@10 | k=10 ms | k=500 ms | memory MB |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {row['items']:,} | {row['build_s']:,.1f} | {row['file_mb']:,.0f} | {row['opening_s']:.3f} "
        f"| {row['ef_search'] if row['recall'] < 1 else 'exact'} | {row['recall']:.4f} | {row['k10_ms']:.2f} "
        f"| {row['k500_ms']:.2f} | {row['memory_mb']:,.0f} |"
        for row in rows
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure each size, print the table, write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for indexes")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    options = parser.parse_args()
    rows = []
    for items in options.sizes:
        folder = options.work / str(items)
        folder.mkdir(parents=True, exist_ok=True)
        rows.append(alone(serve, folder, alone(construct, folder, items)))
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "growth.json").write_text(json.dumps(rows, indent=1) + "\n")
    (RESULTS / "growth.md").write_text(written(rows))
    print(written(rows))


if __name__ == "__main__":
    main()
