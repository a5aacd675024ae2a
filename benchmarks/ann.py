"""The index against hnswlib, usearch and plain faiss: recall and queries a second, building, opening, memory.

    python benchmarks/ann.py --items 1000000 --work FOLDER

The same clustered vectors of 128 numbers (clustered.py), links and efConstruction for all, one thread; every step of
every library in a process of its own. Queries are drawn like the items and are not among them; the truth is an exact
search in float32. Queries a second: all 2,000 in one call, best of five, by CPU time, so that neighbours on the machine
count less. Building: CPU time. Memory: growth of the process from before opening until after the last query, but at
least the file: pages that no query has touched yet count as well. `vitrine` is the whole of Index.search.

Writes benchmarks/results/ann-ITEMS.json, .md, .svg. What --work holds already is not made again.
Needs `pip install hnswlib usearch`.
"""

import argparse
import json
import math
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parents[1]))

import faiss
import numpy as np
import psutil
from clustered import draw
from curves import draw_curves

from service.recommender.agreement import overlaps
from service.recommender.index.vector_index import HNSW_CONSTRUCTION, HNSW_LINKS, Index, build
from training.index.embedding import RECALL, tune_search

RESULTS = Path(__file__).parent / "results"
QUERIES, K, ROUNDS = 2000, 10, 5
EF = (20, 28, 40, 56, 80, 112, 160, 224, 320)
Search = Callable[[np.ndarray, int], np.ndarray]  # queries (n, dim), ef -> positions (n, K)


def build_vitrine(vectors: np.ndarray, path: Path) -> None:
    faiss.write_index(build(vectors, exact_below=0), str(path))


def open_vitrine(path: Path, items: int, dim: int) -> Search:
    index = Index.open(path, np.arange(items), items=items)

    def search(queries: np.ndarray, ef: int) -> np.ndarray:
        index.ef_search = ef
        return index.search(queries, k=K)[0]

    return search


def build_faiss(vectors: np.ndarray, path: Path) -> None:
    index = faiss.IndexHNSWFlat(vectors.shape[1], HNSW_LINKS, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = HNSW_CONSTRUCTION
    index.add(vectors)
    faiss.write_index(index, str(path))


def open_faiss(path: Path, items: int, dim: int) -> Search:
    index = faiss.read_index(str(path))
    return lambda queries, ef: index.search(queries, K, params=faiss.SearchParametersHNSW(efSearch=ef))[1]


def build_hnswlib(vectors: np.ndarray, path: Path) -> None:
    import hnswlib

    index = hnswlib.Index("ip", vectors.shape[1])
    index.init_index(len(vectors), M=HNSW_LINKS, ef_construction=HNSW_CONSTRUCTION)
    index.add_items(vectors, num_threads=1)
    index.save_index(str(path))


def open_hnswlib(path: Path, items: int, dim: int) -> Search:
    import hnswlib

    index = hnswlib.Index("ip", dim)
    index.load_index(str(path))

    def search(queries: np.ndarray, ef: int) -> np.ndarray:
        index.set_ef(ef)
        return index.knn_query(queries, K, num_threads=1)[0].astype(np.int64)

    return search


def build_usearch(vectors: np.ndarray, path: Path) -> None:
    from usearch.index import Index as USearch

    index = USearch(
        ndim=vectors.shape[1], metric="ip", dtype="f32", connectivity=HNSW_LINKS, expansion_add=HNSW_CONSTRUCTION
    )
    index.add(np.arange(len(vectors)), vectors, threads=1)
    index.save(str(path))


def open_usearch(path: Path, items: int, dim: int) -> Search:
    from usearch.index import Index as USearch

    index = USearch.restore(str(path))

    def search(queries: np.ndarray, ef: int) -> np.ndarray:
        index.expansion_search = ef
        return np.asarray(index.search(queries, K, threads=1).keys, np.int64)

    return search


LIBRARIES = {
    "vitrine": (build_vitrine, open_vitrine),
    "faiss": (build_faiss, open_faiss),
    "hnswlib": (build_hnswlib, open_hnswlib),
    "usearch": (build_usearch, open_usearch),
}
MODULES = {"vitrine": "faiss", "faiss": "faiss", "hnswlib": "hnswlib", "usearch": "usearch.index"}


def alone(step: Callable[..., Any], *arguments: Any) -> Any:
    """Run a function in a fresh process."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(step, *arguments).result()


def prepare(work: Path, items: int) -> None:
    """Write items.npy, queries.npy and truth.npy."""
    vectors, queries = draw(items, QUERIES)
    np.save(work / "items.npy", vectors)
    np.save(work / "queries.npy", queries)
    np.save(work / "truth.npy", faiss.knn(queries, vectors, K, metric=faiss.METRIC_INNER_PRODUCT)[1])


def construct(work: Path, library: str) -> float:
    """Build and save -> seconds of CPU."""
    faiss.omp_set_num_threads(1)
    vectors = np.load(work / "items.npy")
    started = time.process_time()
    LIBRARIES[library][0](vectors, work / f"{library}.index")
    return time.process_time() - started


def measure(work: Path, library: str) -> dict[str, Any]:
    """Open, and search at each ef -> seconds, MB, and points of (ef, recall, queries a second)."""
    faiss.omp_set_num_threads(1)
    __import__(MODULES[library])
    queries, truth = np.load(work / "queries.npy"), np.load(work / "truth.npy")
    items, dim = np.load(work / "items.npy", mmap_mode="r").shape
    path, process = work / f"{library}.index", psutil.Process()
    before, started = process.memory_info().rss, time.perf_counter()
    search = LIBRARIES[library][1](path, items, dim)
    opening, opened = time.perf_counter() - started, process.memory_info().rss
    points = [point(search, queries, truth, ef) for ef in EF]
    grown, size = process.memory_info().rss - before, path.stat().st_size
    return {
        "opening_s": opening,
        "opened_mb": (opened - before) / 1e6,
        "grown_mb": grown / 1e6,
        "file_mb": size / 1e6,
        "memory_mb": max(grown, size) / 1e6,
        "points": points,
    }


def point(search: Search, queries: np.ndarray, truth: np.ndarray, ef: int) -> dict[str, float]:
    """Recall and queries a second at one ef."""
    found = search(queries, ef)
    recall = overlaps(truth.tolist(), found.tolist()).mean()
    seconds = []
    for _ in range(ROUNDS):
        started = time.process_time()
        search(queries, ef)
        seconds.append(time.process_time() - started)
    return {"ef": ef, "recall": float(recall), "qps": len(queries) / min(seconds)}


def defaults(work: Path) -> dict[str, float]:
    """What `vitrine train` would choose for these items, and what the queries get from it."""
    faiss.omp_set_num_threads(1)
    vectors, queries = np.load(work / "items.npy", mmap_mode="r"), np.load(work / "queries.npy")
    index = Index.open(work / "vitrine.index", np.arange(len(vectors)), items=len(vectors))
    started = time.process_time()
    promised = tune_search(index, vectors, asked=RECALL, rng=np.random.default_rng(0))
    seconds, ef = time.process_time() - started, index.ef_search
    search = open_vitrine(work / "vitrine.index", *vectors.shape)
    return {"promised": promised, "tuning_s": seconds} | point(search, queries, np.load(work / "truth.npy"), ef)


def qps_at(points: list[dict[str, float]], recall: float) -> float | None:
    """Queries a second where the curve crosses the recall, between its points on a log scale; None if it never does."""
    for low, high in zip([points[0], *points], points, strict=False):
        if high["recall"] >= recall:
            rise = high["recall"] - low["recall"]
            share = (recall - low["recall"]) / rise if rise > 0 else 1.0
            return math.exp((1 - share) * math.log(low["qps"]) + share * math.log(high["qps"]))
    return None


def written(facts: dict[str, Any]) -> str:
    """The table and what stands under it, in markdown."""
    libraries, chosen = facts["libraries"], facts["defaults"]
    ours = libraries["vitrine"]
    lines = [
        f"{facts['items']:,} items x {facts['dim']}, M {HNSW_LINKS}, efConstruction {HNSW_CONSTRUCTION}, one thread",
        "",
        "| | queries/s at recall@10 .99 | vitrine's ratio | memory MB | ratio | build s of CPU | ratio | opening s |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, it in libraries.items():
        fast = f"{it['qps']:,.0f} | {ours['qps'] / it['qps']:.2f}" if it["qps"] and ours["qps"] else "not reached | "
        lines.append(
            f"| {name} | {fast} | {it['memory_mb']:,.0f} | {ours['memory_mb'] / it['memory_mb']:.2f} "
            f"| {it['build_s']:,.0f} | {ours['build_s'] / it['build_s']:.2f} | {it['opening_s']:.3f} |"
        )
    lines += [
        "",
        f"At default settings ({RECALL} asked) vitrine chose efSearch {chosen['ef']} in {chosen['tuning_s']:.0f} s, "
        f"with recall {chosen['promised']:.4f} on its own probes; the queries got {chosen['recall']:.4f} at "
        f"{chosen['qps']:,.0f} a second. Opening grew the process by {ours['opened_mb']:.0f} MB, all queries by "
        f"{ours['grown_mb']:.0f} MB, of a file of {ours['file_mb']:.0f}.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print the table, write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--work", type=Path, required=True, help="folder for vectors and indexes")
    parser.add_argument("--libraries", default=",".join(LIBRARIES), help="comma-separated; vitrine is always one")
    options = parser.parse_args()
    work = options.work / str(options.items)
    work.mkdir(parents=True, exist_ok=True)
    if not (work / "truth.npy").exists():
        alone(prepare, work, options.items)
    libraries: dict[str, Any] = {}
    for name in options.libraries.split(","):
        built = work / f"{name}.json"
        if not built.exists():
            built.write_text(json.dumps({"build_s": alone(construct, work, name)}))
        libraries[name] = json.loads(built.read_text()) | alone(measure, work, name)
        libraries[name]["qps"] = qps_at(libraries[name]["points"], RECALL)
    dim = int(np.load(work / "queries.npy", mmap_mode="r").shape[1])
    facts = {"items": options.items, "dim": dim, "libraries": libraries, "defaults": alone(defaults, work)}
    RESULTS.mkdir(exist_ok=True)
    name = RESULTS / f"ann-{options.items}"
    name.with_suffix(".json").write_text(json.dumps(facts, indent=1) + "\n")
    name.with_suffix(".md").write_text(written(facts))
    curves = {name: [(at["recall"], at["qps"]) for at in it["points"]] for name, it in libraries.items()}
    title = f"Queries a second by recall@10, {options.items:,} items"
    name.with_suffix(".svg").write_text(draw_curves(curves, title=title))
    print(written(facts))


if __name__ == "__main__":
    main()
