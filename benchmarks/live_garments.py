"""Pictures of garments that the demo does not have, and the key by which they are put."""

import random
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from servers import HERE

sys.path.insert(0, str(HERE.parent))
from training.demo.garments import BACKGROUNDS, CATEGORIES, COLOURS, PATTERNS, Garment, draw

KEY = {"X-Catalogue-Key": "benchmark-key"}
FIRST_SEED = 5_000_000  # away from those of the demo


def garments(folder: Path, count: int) -> list[bytes]:
    """So many pictures of garments that the demo does not have; those that are not in the folder are drawn."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number:05d}.jpg" for number in range(count)]
    missing = [(number, path) for number, path in enumerate(paths) if not path.exists()]
    with ProcessPoolExecutor() as pool:
        list(pool.map(_draw, *zip(*missing, strict=True), chunksize=16) if missing else ())
    return [path.read_bytes() for path in paths]


def _draw(number: int, path: Path) -> None:
    rng = random.Random(FIRST_SEED + number)
    garment = Garment(
        category=rng.choice(CATEGORIES),
        colour=rng.choice(list(COLOURS)),
        pattern=rng.choice(PATTERNS),
        background=rng.choice(BACKGROUNDS),
        scale=rng.uniform(0.66, 0.95),
        angle=rng.gauss(0, 6),
        light=rng.uniform(0.8, 1.12),
        seed=FIRST_SEED + number,
    )
    unfinished = path.with_suffix(".tmp")
    draw(garment).save(unfinished, "JPEG", quality=88)
    unfinished.rename(path)
