"""Embed the catalogue with the exported encoder, build the index, and measure it.

What photos are told by is learned from pictures that are augmented, drawn and mixed. Where the encoder is that of an
earlier release, those of that release go on teaching, until a tenth of the catalogue's pictures have come since.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import torch

from service.encoder import preprocessing
from service.encoder.selection import Encoder
from service.recommender.index.gallery import Gallery, sorted_descriptions
from service.recommender.index.vector_index import EF_SEARCH, EXACT_BELOW, Index, build
from service.recommender.release import DENSITY, DESCRIPTIONS, LANDMARKS, PICTURE_ROWS
from training.data.catalogue import Catalogue
from training.data.pictures import Pictures
from training.encoder.augmentation import augment, strangers
from training.index import in_catalogue, recognition
from training.index.catalogue_vectors import Embedded, embed_catalogue
from training.previous.release import DIGESTS, STRANGERS, VECTORS, VIEW_ROWS, VIEWS, Calibration, Previous
from training.progress import say, track

BATCH = 32
PHOTOGRAPHED = 1000  # items, by augmentation
DRAWN = 256  # pictures of nothing in the catalogue
RECALL = 0.99
MOST_NEW = 0.1  # of the pictures, that may have come since photos were calibrated
PROBES, NEAREST = 2000, 10  # queries that measure the recall, and how many nearest items it is of
DUPLICATE = 0.999  # cosine from which two pictures are the same
EF_SEARCHES = tuple(round(16 * 1.2**step) for step in range(25))  # 16 to 1,272


@dataclass(frozen=True, slots=True)
class Views:
    """Augmented pictures, as users might photograph the items. rows: (m,) what each shows; vectors: (m, dim);
    pixels: (m, side, side, 3) uint8, None for those of an earlier release."""

    rows: np.ndarray
    vectors: np.ndarray
    pixels: np.ndarray | None


def photograph(pictures: Pictures, encoder: Encoder, *, seed: int) -> Views:
    """Augment pictures of some items, the first of each."""
    rng = np.random.default_rng(seed)
    generator = torch.Generator().manual_seed(seed)
    positions = np.sort(rng.permutation(len(pictures.rows))[:PHOTOGRAPHED])
    parts, pixels = [], []
    for start in track(range(0, len(positions), BATCH), "photographing items anew"):
        squares = pictures.take(positions[start : start + BATCH])
        views = augment(squares, size=preprocessing.PREPROCESSING.crop, generator=generator).round()
        pixels.append(views.to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy())
        parts.append(encoder.encode(pixels[-1]))
    return Views(pictures.rows[positions], np.concatenate(parts), np.concatenate(pixels))


def draw_strangers(pictures: Pictures, encoder: Encoder, *, seed: int) -> np.ndarray:
    """Vectors of pictures that show nothing of this catalogue, drawn, shuffled, or mixed of two: (m, dim)."""
    generator = torch.Generator().manual_seed(seed + 1)
    rng = np.random.default_rng(seed + 1)
    parts = []
    for _ in range(DRAWN // BATCH):
        pixels = pictures.centre(rng.integers(len(pictures.rows), size=BATCH))
        whole = pixels.permute(0, 3, 1, 2).float()
        for made in (strangers(whole, generator=generator), (whole + whole.flip(0)) / 2):
            drawn = made.round().to(torch.uint8)
            parts.append(encoder.encode(drawn.permute(0, 2, 3, 1).contiguous().numpy()))
    return np.concatenate(parts)


def build_index(
    embedded: Embedded,
    views: Views,
    strange: np.ndarray,
    folder: Path,
    *,
    kinds: np.ndarray,
    exact_below: int = EXACT_BELOW,
    recall: float = RECALL,
    kept: Calibration | None = None,
) -> dict[str, object]:
    """Write index.faiss, vectors.npy, landmarks.npy, landmarks.faiss, and picture_rows.npy where an item has several
    pictures; returns what the manifest says of it.

    strange: vectors of `draw_strangers`; kinds: (items,) numbers of their categories, 0 where unknown; recall: the
    recall@10 for which a graph is to be searched far enough; kept: what the views were taken from, if anything."""
    sealed = build(embedded.vectors, exact_below=exact_below)
    faiss.write_index(sealed, str(folder / "index.faiss"))
    items = len(kinds)
    index = Index(sealed, embedded.rows, items=items)
    np.save(folder / "vectors.npy", embedded.of_items(items))
    np.save(folder / LANDMARKS, embedded.landmarks)
    descriptions = sorted_descriptions(embedded.landmarks)
    faiss.write_index_binary(descriptions, str(folder / DESCRIPTIONS))
    if index.most > 1:
        np.save(folder / PICTURE_ROWS, embedded.rows)
    graph: dict[str, object] = {}
    match = None if kept is None else kept.match
    reached = 1.0
    if isinstance(sealed, faiss.IndexHNSW):
        reached = tune_search(index, embedded.vectors, asked=recall, rng=np.random.default_rng(0))
        graph = {"recall_asked": recall, "ef_search": index.ef_search}
    density = in_catalogue.density_of(index)
    np.save(folder / DENSITY, density)
    if views.pixels is not None:
        shown = np.array([index.pictures(int(row)).start for row in views.rows], np.int64)
        match = recognition.fit(Gallery(embedded.landmarks, descriptions), shown, views.pixels)
    told = in_catalogue.fit(index, kinds, density, views.rows, views.vectors, strange)
    return {
        "type": type(sealed).__name__,
        "size": len(embedded.rows),
        "recall_at_10": reached,
        "in_catalogue": told,
        "strangers_refused": told["strangers_refused"],
        "match": match,
        "new_since_calibration": 0 if kept is None else kept.new,
        **graph,
    }


def tune_search(index: Index, pictured: np.ndarray, *, asked: float, rng: np.random.Generator) -> float:
    """Set the least `ef_search` that gives the recall@10 asked -> the recall that it gives.

    pictured: (m, dim), the vectors of its pictures. Two standard errors above what is asked, so that other queries get
    it as well."""
    queries = probes(pictured, rng=rng)
    cosines, _ = faiss.knn(queries, pictured, NEAREST, metric=faiss.METRIC_INNER_PRODUCT)
    for index.ef_search in EF_SEARCHES:
        positions, _ = index.search_pictures(queries, k=NEAREST)
        found = np.einsum("nd,nkd->nk", queries, pictured[positions])
        # items as near as the tenth are as right as it is: duplicates of a picture are no misses
        hits = (found >= cosines[:, -1:] - 1e-6).mean(axis=1)
        reached, margin = float(hits.mean()), 2 * float(hits.std()) / math.sqrt(len(hits))
        if reached - margin >= asked:
            return reached
    say(f"index: recall@10 is {reached:.4f} as far as a graph is searched (efSearch {index.ef_search}), not {asked}")
    return reached


def probes(pictured: np.ndarray, *, rng: np.random.Generator) -> np.ndarray:
    """Queries like a photo of something that the catalogue lacks: (n, dim) float32, unit length.

    Items, each moved in a random direction until it is as far from where it was as from its nearest neighbour: a graph
    is walked to its own items, and to what is close to one, more surely than to what lies between them."""
    items = pictured[np.sort(rng.permutation(len(pictured))[:PROBES])]
    cosines, _ = faiss.knn(items, pictured, NEAREST, metric=faiss.METRIC_INNER_PRODUCT)
    near = np.where(cosines < DUPLICATE, cosines, 0).max(axis=1, keepdims=True)
    away = rng.standard_normal(items.shape, dtype=np.float32)
    away -= np.einsum("nd,nd->n", away, items)[:, None] * items
    away /= np.linalg.norm(away, axis=1, keepdims=True)
    return (near * items + np.sqrt(1 - near**2) * away).astype(np.float32)


def open_built(folder: Path, facts: Mapping[str, Any]) -> tuple[Index, tuple[np.ndarray, np.ndarray], np.ndarray]:
    """What the stage left -> the index, rows and vectors of `photograph`, and the items' vectors.

    -> rows (n,), vectors (n, dim) float32; (items, dim) float32."""
    vectors = np.load(folder / "vectors.npy", mmap_mode="r")
    rows = np.flatnonzero(~np.isnan(vectors[:, 0]))
    if (folder / PICTURE_ROWS).exists():
        rows = np.load(folder / PICTURE_ROWS)
    views = np.load(folder / VIEW_ROWS), np.load(folder / VIEWS)
    ef_search = facts.get("ef_search", EF_SEARCH)
    return Index.open(folder / "index.faiss", rows, items=len(vectors), ef_search=ef_search), views, vectors


def write(
    folder: Path,
    catalogue: Catalogue,
    pictures: Pictures,
    network: Encoder,
    *,
    exact_below: int,
    recall: float,
    seed: int,
    previous: Previous | None = None,
) -> dict[str, Any]:
    """Leave vectors, index and views of the items in `folder`; returns what the manifest says of the index.

    exact_below: items below which the search is exact; recall: @10, for which a larger index is searched;
    previous: a release with the same encoder."""
    known = None if previous is None else previous.pictures
    embedded = embed_catalogue(catalogue, network, known=known)
    kept = None if previous is None else _kept(catalogue, embedded, previous)
    if kept is None:
        views = photograph(pictures, network, seed=seed)
        strange = draw_strangers(pictures, network, seed=seed)
    else:
        views, strange = Views(kept.rows, kept.views, None), kept.strangers
    for name, array in ((VIEW_ROWS, views.rows), (VIEWS, views.vectors), (STRANGERS, strange),
                        (DIGESTS, embedded.digests)):  # fmt: skip
        np.save(folder / name, array)
    if len(np.unique(embedded.rows)) < len(embedded.rows):
        np.save(folder / VECTORS, embedded.vectors)
    kinds = catalogue.category_numbers()
    return build_index(embedded, views, strange, folder, kinds=kinds, exact_below=exact_below, recall=recall, kept=kept)


def _kept(catalogue: Catalogue, embedded: Embedded, previous: Previous) -> Calibration | None:
    """What photos were told by, as far as its items are still there; None where too much has come since."""
    kept = previous.calibration
    if kept is None:
        return None
    came = sum(row.tobytes() not in previous.pictures.digests for row in embedded.digests)
    new = kept.new + came
    if new > MOST_NEW * len(embedded.rows):
        say(f"index: {new} pictures came since photos were calibrated: that is done again")
        return None
    place = {item_id: row for row, item_id in enumerate(catalogue.items["item_id"])}
    ids = previous.release.items.ids
    pictured = set(embedded.rows.tolist())
    rows = np.array([place.get(ids[row], -1) for row in kept.rows.tolist()], np.int64)
    there = np.array([row in pictured for row in rows.tolist()], bool)
    return replace(kept, rows=rows[there], views=kept.views[there], new=new)
