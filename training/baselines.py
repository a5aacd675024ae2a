"""What a recommender must beat: popularity, item-kNN, pictures alone, colours alone."""

import io

import numpy as np
import scipy.sparse
from PIL import Image

from service.release import Release
from training.measures import top
from training.split import HeldOut, Split

NEIGHBOURS = 100
BLOCK = 256


def popularity(split: Split, held: HeldOut, *, items: int, k: int) -> np.ndarray:
    """(users, k): the most touched items of the training period."""
    pairs = split.train[["user_id", "item"]].drop_duplicates()
    counts = np.bincount(pairs["item"], minlength=items).astype(np.float32)
    return _rank(held, k, lambda block: np.repeat(counts[None], len(block), axis=0))


def item_knn(split: Split, held: HeldOut, *, items: int, k: int) -> np.ndarray:
    """(users, k): items that the same people touched, the 100 nearest of each by cosine (Sarwar et al., 2001)."""
    matrix = _binary(split, items)
    near = _nearest_columns(matrix)
    rows = [np.unique(seen) for seen in held.seen]
    return _rank(held, k, lambda block: np.stack([np.asarray(near[rows[at]].sum(axis=0)).ravel() for at in block]))


def likeness(vectors: np.ndarray, held: HeldOut, *, k: int) -> np.ndarray:
    """(users, k): items nearest to the mean of the user's own. vectors: (items, d), NaN where unknown."""
    known = np.nan_to_num(vectors)
    return _rank(held, k, lambda block: np.stack([known[held.seen[at]].mean(axis=0) for at in block]) @ known.T)


def truth(utility: np.ndarray, rows: np.ndarray, held: HeldOut, *, k: int) -> np.ndarray:
    """(users, k): the best possible ranking, by the utility that made the log. rows: (users,) its row of each user."""
    return _rank(held, k, lambda block: utility[rows[block]])


def colour_histograms(release: Release) -> np.ndarray:
    """(items, 64) float32, 4 x 4 x 4 RGB bins of the thumbnails' middle, unit length; NaN without a picture."""
    histograms = np.full((len(release.items), 64), np.nan, np.float32)
    for row in np.flatnonzero(release.items.pictured):
        image = Image.open(io.BytesIO(release.thumbnails.jpeg(int(row))))
        image.draft("RGB", (64, 64))
        pixels = np.asarray(image.convert("RGB").resize((48, 48)))[8:40, 8:40].reshape(-1, 3) // 64
        counts = np.bincount(pixels @ [16, 4, 1], minlength=64).astype(np.float32)
        histograms[row] = counts / np.linalg.norm(counts)
    return histograms


def _binary(split: Split, items: int) -> scipy.sparse.csr_matrix:
    pairs = split.train[["user_id", "item"]].drop_duplicates()
    _, users = np.unique(pairs["user_id"].to_numpy(dtype=str), return_inverse=True)
    ones = np.ones(len(pairs), np.float32)
    return scipy.sparse.csr_matrix((ones, (users, pairs["item"])), shape=(users.max() + 1, items))


def _nearest_columns(matrix: scipy.sparse.csr_matrix) -> scipy.sparse.csr_matrix:
    norms = np.sqrt(np.asarray(matrix.sum(axis=0)).ravel())
    unit = (matrix @ scipy.sparse.diags(1 / np.maximum(norms, 1e-9))).tocsc()
    blocks = []
    for start in range(0, matrix.shape[1], 1024):
        cosines = (unit[:, start : start + 1024].T @ unit).toarray()
        cosines[np.arange(len(cosines)), start + np.arange(len(cosines))] = 0
        width = min(NEIGHBOURS, cosines.shape[1])
        cut = -np.partition(-cosines, width - 1, axis=1)[:, width - 1 : width]
        blocks.append(scipy.sparse.csr_matrix(np.where(cosines >= np.maximum(cut, 1e-9), cosines, 0)))
    return scipy.sparse.vstack(blocks).tocsr()


def _rank(held: HeldOut, k: int, scores_of) -> np.ndarray:  # type: ignore[no-untyped-def]
    """Rank the candidates that a user has not seen. scores_of: positions of users -> (n, items)."""
    ranked = []
    for start in range(0, len(held.users), BLOCK):
        block = np.arange(start, min(start + BLOCK, len(held.users)))
        scores = np.array(scores_of(block), dtype=np.float32)
        scores[:, ~held.candidates] = -np.inf
        for line, at in zip(scores, block, strict=True):
            line[held.seen[at]] = -np.inf
        ranked.append(top(scores, k))
    return np.concatenate(ranked)
