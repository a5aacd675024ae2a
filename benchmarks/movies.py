"""Draw a catalogue of MovieLens-1M's shape: 4,000 films with posters and genres, 6,000 users, a million events.

    python benchmarks/movies.py /tmp/movies
    vitrine train /tmp/movies --releases /tmp/movie-releases --backbone convnet --weights none --epochs 4
    vitrine evaluate /tmp/movie-releases/1 --catalogue /tmp/movies --retrain leave-one-out --negatives 99 --out /tmp/o

Who touches what is drawn from known tastes, so the best that any ranker could do is known, and printed: the hit rate
and nDCG of the true probabilities under leave-one-out with 99 negatives. Genres, age and gender carry some of the
taste, and posters some of the genre.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw

from training.progress import track

GENRES = (
    "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy",
    "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)  # fmt: skip
AGES = (1, 18, 25, 35, 45, 50, 56)
DIM = 16  # of the true tastes
NEGATIVES, AT = 99, 10


def draw(folder: Path, *, films: int, users: int, events: int, seed: int) -> dict[str, float]:
    """Write items.csv, images/, users.csv and interactions.csv; return the best possible measures."""
    rng = np.random.default_rng(seed)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    genre_taste = rng.normal(size=(len(GENRES), DIM))
    genres = [np.sort(rng.choice(len(GENRES), rng.integers(1, 4), replace=False)) for _ in range(films)]
    taste = np.stack([genre_taste[mine].mean(axis=0) for mine in genres]) + rng.normal(size=(films, DIM)) * 0.7
    fame = -1.1 * np.log(rng.permutation(films) + 20.0)
    years = rng.integers(1930, 2001, size=films)
    _write_films(folder, genres, years, rng)

    gender, age = rng.integers(2, size=users), rng.integers(len(AGES), size=users)
    group_taste = rng.normal(size=(2 * len(AGES), DIM))
    people = 0.6 * group_taste[gender * len(AGES) + age] + rng.normal(size=(users, DIM))
    pd.DataFrame({
        "user_id": np.arange(1, users + 1), "gender": np.array(["F", "M"])[gender], "age": np.array(AGES)[age],
        "occupation": rng.integers(21, size=users),
    }).to_csv(folder / "users.csv", index=False)  # fmt: skip

    share = rng.lognormal(0, 0.9, size=users)
    counts = np.clip((share / share.sum() * events).astype(int), 20, films // 2)
    starts = np.sort(rng.integers(956_700_000, 978_000_000, size=users))
    lines, hits, gains = [], [], []
    for user in track(range(users), "users"):
        chance = fame + 0.55 * taste @ people[user]
        # the n films with the largest perturbed logits are n draws without replacement (Gumbel's trick)
        order = np.argsort(-(chance + rng.gumbel(size=films)))[: counts[user]]
        order = rng.permutation(order)
        times = starts[user] + np.sort(rng.integers(0, 40 * counts[user], size=counts[user]))
        lines.append(pd.DataFrame({"user_id": user + 1, "item_id": order + 1, "event": "view", "timestamp": times}))
        untouched = np.setdiff1d(np.arange(films), order)
        rank = int((chance[rng.choice(untouched, NEGATIVES, replace=False)] > chance[order[-1]]).sum())
        hits.append(rank < AT)
        gains.append(1 / np.log2(rank + 2) if rank < AT else 0.0)
    pd.concat(lines).sort_values("timestamp", kind="stable").to_csv(folder / "interactions.csv", index=False)
    return {"hit_rate_at_10": float(np.mean(hits)), "ndcg_at_10": float(np.mean(gains))}


def _write_films(folder: Path, genres: list[np.ndarray], years: np.ndarray, rng: np.random.Generator) -> None:
    """A poster shows a patch in the colour of each genre, on a ground that means nothing."""
    colours = rng.integers(30, 226, size=(len(GENRES), 3))
    words = rng.permutation([a + b for a in ("Night", "River", "Star", "Stone", "Wild") for b in ("fall", "ward", "s")])
    rows = []
    for film, mine in enumerate(track(genres, "posters")):
        poster = Image.new("RGB", (240, 360), tuple(rng.integers(256, size=3).tolist()))
        pen = ImageDraw.Draw(poster)
        for genre in mine:
            x, y = rng.integers(0, 160), rng.integers(0, 240)
            shape = pen.ellipse if genre % 2 else pen.rectangle
            shape((x, y, x + 80, y + 110), fill=tuple(colours[genre].tolist()))
        poster.save(folder / "images" / f"{film + 1}.jpg", quality=85)
        title = f"{' '.join(rng.choice(words, 2))} ({years[film]})"
        rows.append((film + 1, f"images/{film + 1}.jpg", title, "|".join(GENRES[genre] for genre in mine), years[film]))
    columns = ["item_id", "image", "title", "genres", "year"]
    pd.DataFrame(rows, columns=columns).to_csv(folder / "items.csv", index=False)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--films", type=int, default=4000)
    parser.add_argument("--users", type=int, default=6000)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    best = draw(given.folder, films=given.films, users=given.users, events=given.events, seed=given.seed)
    print(json.dumps({"best possible": best}))
