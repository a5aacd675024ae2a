"""Embed the catalogue with the exported encoder, build the index, and measure it."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import faiss
import numpy as np
import torch

from service import images
from service.encoder import Encoder
from service.index import EXACT_BELOW, Index, build
from training.augment import augment, strangers
from training.catalogue import Catalogue
from training.pictures import Pictures
from training.progress import track

BATCH = 32
PROBES = 500  # queries that measure the recall
VIEWS = 1000  # items photographed anew by augmentation
STRANGERS = 256
STRANGE_SHARE = 0.03  # of varied photos, harsher than a shopper takes, that may be taken for strangers


def embed_catalogue(catalogue: Catalogue, encoder: Encoder) -> np.ndarray:
    """The vector of every item, as serving would decode it: (items, dim) float32, NaN without a picture."""
    vectors = np.full((len(catalogue.items), encoder.dim), np.nan, np.float32)
    rows = catalogue.pictured()
    batches = [rows[start : start + BATCH] for start in range(0, len(rows), BATCH)]

    def decode(batch: np.ndarray) -> np.ndarray:
        return images.decode_all(catalogue.picture(row) for row in batch)

    with ThreadPoolExecutor(2) as pool:
        decoded = pool.map(decode, batches)
        for batch in track(batches, "embedding the catalogue"):
            vectors[batch] = encoder.encode(next(decoded))
    return vectors


def photograph(pictures: Pictures, encoder: Encoder, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Vectors of augmented pictures, as shoppers might photograph the items -> rows (m,), vectors (m, dim)."""
    rng = np.random.default_rng(seed)
    generator = torch.Generator().manual_seed(seed)
    positions = np.sort(rng.permutation(len(pictures.rows))[:VIEWS])
    parts = []
    for start in track(range(0, len(positions), BATCH), "photographing items anew"):
        squares = pictures.take(positions[start : start + BATCH])
        views = augment(squares, size=images.PREPROCESSING.crop, generator=generator).round()
        parts.append(encoder.encode(views.to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()))
    return pictures.rows[positions], np.concatenate(parts)


def draw_strangers(pictures: Pictures, encoder: Encoder, *, seed: int) -> np.ndarray:
    """Vectors of pictures that show nothing of this catalogue, to see how many of them are told apart: (m, dim)."""
    generator = torch.Generator().manual_seed(seed + 1)
    rng = np.random.default_rng(seed + 1)
    parts = []
    for _ in range(STRANGERS // BATCH):
        pixels = pictures.centre(rng.integers(len(pictures.rows), size=BATCH))
        drawn = strangers(pixels.permute(0, 3, 1, 2).float(), generator=generator).round().to(torch.uint8)
        parts.append(encoder.encode(drawn.permute(0, 2, 3, 1).contiguous().numpy()))
    return np.concatenate(parts)


def build_index(
    vectors: np.ndarray,
    views: tuple[np.ndarray, np.ndarray],
    strange: np.ndarray,
    folder: Path,
    *,
    exact_below: int = EXACT_BELOW,
) -> dict[str, object]:
    """Write index.faiss, and return what the manifest says of it.

    vectors: (items, dim); views: rows and vectors of `photograph`; strange: vectors of `draw_strangers`."""
    rows = np.flatnonzero(~np.isnan(vectors[:, 0]))
    # one thread: HNSW's links depend on the order in which threads come
    faiss.omp_set_num_threads(1)
    sealed = build(vectors[rows], exact_below=exact_below)
    faiss.omp_set_num_threads(torch.get_num_threads())
    faiss.write_index(sealed, str(folder / "index.faiss"))
    index = Index(sealed, vectors, rows)
    at = threshold(index, *views)
    return {
        "type": type(sealed).__name__,
        "size": len(rows),
        "recall_at_10": recall(index, vectors, k=10),
        "in_catalogue_at": at,
        "strangers_refused": float((index.search(strange, k=1)[1][:, 0] < at).mean()),
    }


def recall(index: Index, vectors: np.ndarray, *, k: int) -> float:
    """Share of the true k nearest that the index finds, over catalogue pictures as queries."""
    k = min(k, len(index))
    probes = index.rows[:: max(1, len(index) // PROBES)][:PROBES]
    found, _ = index.search(vectors[probes], k=k)
    cosines = vectors[probes] @ vectors[index.rows].T
    # items as near as the k-th one are as right as it is: duplicates of a picture are no misses
    kth = -np.partition(-cosines, k - 1, axis=1)[:, k - 1]
    reached = np.einsum("nd,nkd->nk", vectors[probes], vectors[found])
    return float((reached >= kth[:, None] - 1e-5).mean())


def threshold(index: Index, rows: np.ndarray, views: np.ndarray) -> float:
    """The cosine below which a photo's nearest item is too far: 3 % of varied photos lie below it.

    Each view is compared with all items but the one it shows: a shopper's photo is seldom of the very item."""
    nearest, cosines = index.search(views, k=2)
    others = np.where(nearest[:, 0] == rows, cosines[:, -1], cosines[:, 0])
    others = others[np.isfinite(others)]
    return float(np.quantile(others, STRANGE_SHARE)) if len(others) else -1.0
