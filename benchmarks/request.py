"""One photo at a time through the whole pipeline, against the bare loop of decoding and the ONNX session.

python benchmarks/request.py releases/1
"""

import sys
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from service.encoder import preprocessing
from service.recommender.pipeline import Recommender
from service.recommender.query import Query
from service.recommender.release import Release

ROUNDS = 200


def main() -> None:
    """Alternate the two, so that whatever else the machine does meets both."""
    release = Release.open(Path(sys.argv[1]))
    seconds: dict[str, list[float]] = defaultdict(list)
    recommender = Recommender(release, observe=lambda stage, took: seconds[stage].append(took))
    encoder = recommender.encoder
    assert encoder is not None, "a release with an encoder is needed"
    rows = np.flatnonzero(release.items.pictured)
    photos = [release.thumbnails.jpeg(int(row)) for row in rows[:: max(1, len(rows) // ROUNDS)][:ROUNDS]]
    for photo in photos[:10]:
        recommender.recommend([Query(image=photo)])
    seconds.clear()
    for photo in photos:
        started = time.perf_counter()
        encoder.encode(preprocessing.decode(photo)[None])
        bare = time.perf_counter()
        recommender.recommend([Query(image=photo)])
        seconds["whole pipeline"].append(time.perf_counter() - bare)
        seconds["bare loop"].append(bare - started)
    table = Table("part", "median ms", "p99 ms", title=f"{len(photos)} photos, {len(release.items)} items")
    for name, took in seconds.items():
        table.add_row(name, f"{1000 * np.median(took):.2f}", f"{1000 * np.quantile(took, 0.99):.2f}")
    console = Console()
    console.print(table)
    ratio = np.median(seconds["bare loop"]) / np.median(seconds["whole pipeline"])
    console.print(f"pipeline at {ratio:.2f} of the bare loop's speed")


if __name__ == "__main__":
    main()
