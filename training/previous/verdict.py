"""Is the encoder of an earlier release as good on pictures that are new to it as on those that it was trained on?"""

from collections.abc import Sequence
from dataclasses import dataclass

import faiss
import numpy as np

from service.encoder.engines import OnnxRuntime
from service.encoder.preprocessing import decode_all
from service.encoder.selection import available_cpus
from training.data.catalogue import Catalogue
from training.measures import interval
from training.previous.pictures import new_pictures
from training.previous.release import Previous

NEAREST = 10
FEWEST = 20  # new pictures with a category: fewer say nothing
ASKED = 500  # of the new ones, and of the old, at most
HOLDS = 0.9  # of the precision on old pictures of the same categories, at least, unless chance explains less
BATCH = 32


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether an encoder is kept. new, old: precision@10 by category of new pictures, and of old ones of the same
    categories, each of which counts as often; interval: of the difference, 95 %."""

    kept: bool
    why: str
    pictures: int
    new: float | None = None
    old: float | None = None
    interval: Sequence[float] = ()


def judge(catalogue: Catalogue, previous: Previous) -> Verdict:
    """catalogue: after its pictures were examined; previous: with pictures."""
    rows = new_pictures(catalogue, previous)
    if not previous.pictures.digests:
        return Verdict(True, f"release {previous.number} does not say which pictures it holds; all are new", len(rows))
    kinds = catalogue.category_numbers()
    asked = rows[kinds[rows] > 0]
    if len(asked) < FEWEST:
        return Verdict(True, f"{len(asked)} new pictures with a category are too few to judge it by", len(rows))
    asked = asked[np.linspace(0, len(asked) - 1, min(ASKED, len(asked))).astype(int)]
    precision, expected = _compare(catalogue, previous, asked, kinds)
    if not len(precision):
        return Verdict(True, "no category of the new pictures has old ones to compare with", len(rows))
    new, old = float(precision.mean()), float(expected.mean())
    between = interval(precision - expected)
    kept = new >= HOLDS * old or between[1] >= 0
    found = (
        f"precision@{NEAREST} {new:.3f} on {len(precision)} new pictures, {old:.3f} on old ones of the same "
        f"categories, difference {between[0]:+.3f} to {between[1]:+.3f}"
    )
    return Verdict(kept, found, len(rows), new, old, between)


def _compare(
    catalogue: Catalogue, previous: Previous, asked: np.ndarray, kinds: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The precision of each new picture among the old ones, and the mean of the old ones of its category; only of
    categories that have old pictures. -> (n,), (n,)."""
    place = previous.rows_of(catalogue.items["item_id"].tolist())
    vectors = np.load(previous.release.path / "vectors.npy", mmap_mode="r", allow_pickle=False)
    old = np.flatnonzero((place >= 0) & (kinds > 0))
    old = old[~np.isnan(vectors[place[old], 0])]
    gallery, of_gallery = np.ascontiguousarray(vectors[place[old]]), kinds[old]
    counts = np.bincount(of_gallery, minlength=int(kinds.max()) + 1)
    asked = asked[counts[kinds[asked]] > 1]
    if not len(asked):
        return np.empty(0), np.empty(0)
    new = _precision(_embed(catalogue, previous, asked), kinds[asked], gallery, of_gallery, counts, own=False)
    known = np.isin(of_gallery, kinds[asked])
    probes = np.flatnonzero(known)[:: 1 + int(known.sum()) // (4 * ASKED)]
    before = _precision(gallery[probes], of_gallery[probes], gallery, of_gallery, counts, own=True)
    means = np.zeros(len(counts))
    seen = np.bincount(of_gallery[probes], minlength=len(counts))
    np.add.at(means, of_gallery[probes], before)
    judged = seen[kinds[asked]] > 0
    return new[judged], (means / np.maximum(seen, 1))[kinds[asked]][judged]


def _precision(
    queries: np.ndarray,
    kinds: np.ndarray,
    gallery: np.ndarray,
    of_gallery: np.ndarray,
    counts: np.ndarray,
    *,
    own: bool,
) -> np.ndarray:
    """(n,) the share of the nearest that are of the query's category, of as many as there could be. own: whether the
    queries are in the gallery, and are not to count."""
    _, near = faiss.knn(queries, gallery, min(NEAREST + own, len(gallery)), metric=faiss.METRIC_INNER_PRODUCT)
    hits = (of_gallery[near] == kinds[:, None]).sum(axis=1) - own
    found: np.ndarray = np.maximum(hits, 0) / np.clip(counts[kinds] - own, 1, NEAREST)
    return np.minimum(found, 1.0)


def _embed(catalogue: Catalogue, previous: Previous, rows: np.ndarray) -> np.ndarray:
    network = OnnxRuntime(previous.release.encoders["fp32"], threads=available_cpus())
    parts = [rows[start : start + BATCH].tolist() for start in range(0, len(rows), BATCH)]
    return np.concatenate([network.encode(decode_all(catalogue.picture(row) for row in part)) for part in parts])
