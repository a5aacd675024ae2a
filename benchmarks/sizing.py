"""What a pod needs: memory, time to be ready, requests a second, by the number of items.

    python benchmarks/sizing.py releases/1 --pictures demo/images --work FOLDER [--sizes 10000 100000 1000000]

A release is grown: its items are repeated, with the vectors of clustered.py in place of its own, and indexed anew
(seven minutes for a million; an index.faiss that lies in --work/SIZE already is used). The encoder stays. The golden
cases are answered and sealed anew, so that the service proves them as it would any other.

Each is served by a process of its own with two threads, asked by 8 clients; memory is what the process has to itself
(anonymous) and what it has mapped of files (the kernel gives that up where memory is short, and reads it again).

Writes benchmarks/results/sizing.json and .md.
"""

import argparse
import json
import shutil
import sys
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from ann import QUERIES, RESULTS
from clustered import draw
from servers import vitrine
from serving import Bench

from service.recommender.index.vector_index import build
from service.recommender.pipeline import Recommender
from service.recommender.query import Event, Query
from service.recommender.release import GoldenCase, Manifest, Release
from training.encoder.precisions import answered
from training.packaging.package import seal

SIZES = (10_000, 100_000, 1_000_000)
OF_ITEMS = ("item_factors", "trend")
COLUMNS = ("items", "dim", "release MB", "ready s", "anonymous MiB", "mapped MiB", "requests/s", "p50 ms")


def grow(release: Path, items: int, work: Path) -> Path:
    """A release with so many items, in work/SIZE/1."""
    folder = work / str(items)
    finished, grown = folder / "1", folder / ".growing"
    if finished.exists():
        return finished
    shutil.rmtree(grown, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copytree(release, grown)
    rows = np.arange(items) % len(Release.open(release).items)
    table = pq.read_table(grown / "items.parquet").take(pa.array(rows))
    ids = pa.array([f"{row:08d}" for row in range(items)])
    pq.write_table(table.set_column(table.schema.get_field_index("item_id"), "item_id", ids), grown / "items.parquet")
    offsets = np.load(grown / "thumbnails.npy")  # the pictures of the first ones
    np.save(grown / "thumbnails.npy", np.append(offsets, np.full(items + 1 - len(offsets), offsets[-1])))
    manifest = Manifest.read(release)
    assert manifest.encoder is not None, "a release with pictures is needed"
    vectors, _ = draw(items, QUERIES, dim=manifest.encoder["dim"])
    np.save(grown / "vectors.npy", vectors)
    if not (folder / "index.faiss").exists():
        faiss.write_index(build(vectors), str(folder / "index.faiss"))
    shutil.copy(folder / "index.faiss", grown)
    for name in OF_ITEMS:
        path = grown / "ranker" / f"{name}.npy"
        np.save(path, np.load(path)[rows])
    manifest = replace(manifest, rows={**manifest.rows, "items": items, "pictured": items})
    seal(grown, manifest)
    recommender = Recommender(Release.open(grown))
    cases = []
    for case in recommender.release.golden.cases:
        picture = (grown / "golden" / case.picture).read_bytes() if case.picture else None
        query = Query(image=picture, events=tuple(map(Event, case.events)), k=len(case.items))
        cases.append(GoldenCase(case.picture, case.events, answered(recommender, query)))
    (grown / "golden" / "cases.json").write_text(json.dumps([asdict(case) for case in cases]))
    seal(grown, manifest)
    return grown.rename(finished)


def measure(release: Path, bench: Bench, work: Path) -> dict[str, Any]:
    """Start it twice, the second time with its files in the page cache, and ask it."""
    settings = {"VITRINE_THREADS": "2", "VITRINE_PRECISION": "fp32"}
    with vitrine(release, work, encoder=None, name=f"of {release.parent.name}", **settings):
        pass
    began = time.perf_counter()
    with vitrine(release, work, encoder=None, name=f"of {release.parent.name}", **settings) as server:
        ready = time.perf_counter() - began
        bench.measure(server, seconds=3, clients=8)
        found = bench.measure(server, clients=8)
        memory = server.memory()
    manifest = Manifest.read(release)
    assert manifest.encoder is not None
    return {
        "items": manifest.rows["items"],
        "dim": manifest.encoder["dim"],
        "release MB": round(sum(file["bytes"] for file in manifest.files.values()) / 1e6),
        "ready s": round(ready, 1),
        "anonymous MiB": round(memory[0]),
        "mapped MiB": round(memory[1]),
        "requests/s": round(found["rate"], 1),
        "p50 ms": round(found["p50"], 1),
    }


def main() -> None:
    """Print a line a size, and write both files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("release", type=Path)
    parser.add_argument("--pictures", type=Path, required=True, help="folder of JPEGs")
    parser.add_argument("--work", type=Path, required=True, help="folder for the grown releases; kept")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--seconds", type=float, default=10.0)
    asked = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as home:
        for items in asked.sizes:
            release = grow(asked.release, items, asked.work)
            rows.append(measure(release, Bench(asked.pictures, asked.seconds), Path(home)))
            print(rows[-1], flush=True)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "sizing.json").write_text(json.dumps(rows, indent=1) + "\n")
    lines = ["| " + " | ".join(COLUMNS) + " |", "|" + " --- |" * len(COLUMNS)]
    lines += ["| " + " | ".join(f"{row[name]:,}" for name in COLUMNS) + " |" for row in rows]
    (RESULTS / "sizing.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
