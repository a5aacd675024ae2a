"""The demo: a boutique of drawn garments, and users whose tastes are known, so that evaluation knows the truth."""

from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from training.demo.garments import BACKGROUNDS, CATEGORIES, COLOURS, PATTERNS, Garment, draw
from training.progress import track

FIRST_DAY = 1_767_225_600  # 2026-01-01
NEW_SHARE = 0.03  # of items and of users
NEW_FROM = 0.96  # of the days, just after the last tenth of the log begins
DAYS = 120
SEGMENTS = ("classic", "playful", "sporty", "romantic", "urban")
COLOUR_NAMES = tuple(COLOURS)


@dataclass(frozen=True, slots=True)
class Tastes:
    """log-preferences of every user: category (s, 12), colour (s, 12), pattern (s, 6); segment: (s,)."""

    category: np.ndarray
    colour: np.ndarray
    pattern: np.ndarray
    segment: np.ndarray

    def utility(self, garments: list[Garment], appeal: np.ndarray) -> np.ndarray:
        """(users, items): how much each would like each; the best possible ranking sorts by it.

        appeal: (items,), what everybody likes or dislikes about an item."""
        category = np.array([CATEGORIES.index(g.category) for g in garments])
        colour = np.array([COLOUR_NAMES.index(g.colour) for g in garments])
        pattern = np.array([PATTERNS.index(g.pattern) for g in garments])
        liked = self.category[:, category] + self.colour[:, colour] + self.pattern[:, pattern]
        return (liked + appeal).astype(np.float32)


def write(folder: Path, *, items: int = 1320, shoppers: int = 2000, seed: int = 0) -> None:
    """Write a catalogue folder: items.csv, interactions.csv, users.csv, images/ and truth.npy.

    truth.npy: (users, items) float32, the utility in the order of users.csv and items.csv."""
    rng = np.random.default_rng(seed)
    garments = [_garment(number, seed, rng) for number in range(items)]
    tastes = _tastes(shoppers, rng)
    utility = tastes.utility(garments, rng.normal(0, 0.25, items))
    (folder / "images").mkdir(parents=True)
    _draw_all(folder / "images", garments)
    item_table(garments, rng).to_csv(folder / "items.csv", index=False)
    user_table(tastes, rng).to_csv(folder / "users.csv", index=False)
    _interactions(utility, rng).to_csv(folder / "interactions.csv", index=False)
    np.save(folder / "truth.npy", utility)


def _garment(number: int, seed: int, rng: np.random.Generator) -> Garment:
    return Garment(
        category=CATEGORIES[number % len(CATEGORIES)],
        colour=COLOUR_NAMES[rng.integers(len(COLOURS))],
        pattern=PATTERNS[rng.choice(len(PATTERNS), p=[0.3, 0.16, 0.14, 0.14, 0.13, 0.13])],
        background=BACKGROUNDS[rng.integers(len(BACKGROUNDS))],
        scale=round(float(rng.uniform(0.66, 0.95)), 3),
        angle=round(float(rng.normal(0, 6)), 2),
        light=round(float(rng.uniform(0.8, 1.12)), 3),
        seed=seed * 1_000_003 + number,
    )


def _draw_one(job: tuple[Garment, Path]) -> None:
    garment, path = job
    draw(garment).save(path, "JPEG", quality=88)


def _draw_all(folder: Path, garments: list[Garment]) -> None:
    jobs = [(garment, folder / f"{number:04d}.jpg") for number, garment in enumerate(garments)]
    with ProcessPoolExecutor() as pool:
        for _ in track(pool.map(_draw_one, jobs, chunksize=16), "drawing garments", total=len(jobs)):
            pass


def item_table(garments: list[Garment], rng: np.random.Generator) -> pd.DataFrame:
    """items.csv. Prices go with the category, and a little with the pattern."""
    rows = []
    for number, g in enumerate(garments):
        base = 18 + 9 * CATEGORIES.index(g.category) % 60 + (0 if g.pattern == "plain" else 7)
        title = (
            f"{g.colour.title()} {g.category}"
            if g.pattern == "plain"
            else f"{g.colour.title()} {g.category} with {g.pattern}"
        )
        rows.append({
            "item_id": f"{number:04d}", "image": f"images/{number:04d}.jpg", "title": title, "category": g.category,
            "colour": g.colour, "pattern": g.pattern, "price": round(base * float(rng.uniform(0.8, 1.3)), 2),
            "available": bool(rng.random() < 0.95),
        })  # fmt: skip
    return pd.DataFrame(rows)


def _tastes(shoppers: int, rng: np.random.Generator) -> Tastes:
    """Five segments lean towards some colours and patterns; every user adds their own taste."""
    segment = rng.integers(len(SEGMENTS), size=shoppers)

    def lean(values: int, shared: float, own: float) -> np.ndarray:
        return rng.normal(0, shared, (len(SEGMENTS), values))[segment] + rng.normal(0, own, (shoppers, values))

    return Tastes(
        category=lean(len(CATEGORIES), 1.2, 0.9),
        colour=lean(len(COLOURS), 1.4, 0.9),
        pattern=lean(len(PATTERNS), 1.2, 0.65),
        segment=segment,
    )


def user_table(tastes: Tastes, rng: np.random.Generator) -> pd.DataFrame:
    """users.csv. A user's profile says something about the segment, and so about the taste."""
    n = len(tastes.segment)
    told = np.where(rng.random(n) < 0.85, tastes.segment, rng.integers(len(SEGMENTS), size=n))
    liked = np.argsort(-tastes.colour, axis=1)[:, :2]
    return pd.DataFrame({
        "user_id": [f"{number:05d}" for number in range(n)],
        "age": np.clip(rng.normal(24 + 7 * tastes.segment, 5), 16, 80).astype(int),
        "style": [SEGMENTS[s] for s in told],
        "city": [("Lyon", "Porto", "Ghent", "Turin")[c] for c in rng.integers(4, size=n)],
        "interests": ["|".join(COLOUR_NAMES[c] for c in row) for row in liked],
    })  # fmt: skip


def _interactions(utility: np.ndarray, rng: np.random.Generator) -> pd.DataFrame:
    """Each user touches some items, drawn without replacement in proportion to exp(utility) (Gumbel top-k),
    spread over the days; of what they view some is liked, put into the cart, bought. A few items and users are
    new: all that concerns them happens in the last days, when a release was trained without them."""
    shoppers, items = utility.shape
    new_items = np.asarray(rng.random(items) < NEW_SHARE)
    new_users = np.asarray(rng.random(shoppers) < NEW_SHARE)
    counts = np.clip(rng.lognormal(np.log(60), 0.5, shoppers), 8, min(200, items // 3)).astype(int)
    noisy = utility + rng.gumbel(size=utility.shape)
    order = np.argsort(-noisy, axis=1)
    rows = []
    for user in range(shoppers):
        touched = rng.permutation(order[user, : counts[user]])
        earliest = np.where(new_items[touched] | new_users[user], NEW_FROM * DAYS * 86_400, 0)
        times = (earliest + rng.random(len(touched)) * (DAYS * 86_400 - earliest)).astype(np.int64) + FIRST_DAY
        events = rng.choice(["view", "like", "cart", "purchase"], len(touched), p=[0.62, 0.2, 0.1, 0.08])
        rows.append(pd.DataFrame({"user_id": f"{user:05d}", "item": touched, "event": events, "timestamp": times}))
    log = pd.concat(rows).sort_values("timestamp", kind="stable")
    log.insert(1, "item_id", [f"{number:04d}" for number in log.pop("item")])
    return log
