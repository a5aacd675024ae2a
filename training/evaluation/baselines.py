"""What a recommender must beat: popularity, transitions, item-kNN, user-kNN, pictures alone, factors alone."""

import io
from collections.abc import Callable

import numpy as np
import scipy.sparse
from PIL import Image
from sklearn.metrics.pairwise import cosine_similarity

from service.recommender.release import Release
from training.data.split import HeldOut, Split
from training.measures import auc, top
from training.ranker.fitting import Trained

NEIGHBOURS = 100
BLOCK = 256


# positions of held-out users: (n,) -> scores of all items: (n, items)
Scorer = Callable[[np.ndarray], np.ndarray]


def popularity(split: Split, *, items: int) -> Scorer:
    """The most touched items of the training period."""
    pairs = split.train[["user_id", "item"]].drop_duplicates()
    counts = np.bincount(pairs["item"], minlength=items).astype(np.float32)
    return lambda block: np.repeat(counts[None], len(block), axis=0)


def item_knn(split: Split, held: HeldOut, *, items: int) -> Scorer:
    """Items that the same people touched, the 100 nearest of each by cosine (Sarwar et al., 2001)."""
    matrix, _ = _binary(split, items)
    near = _nearest_columns(matrix)
    rows = [np.unique(seen) for seen in held.seen]
    return lambda block: np.stack([np.asarray(near[rows[at]].sum(axis=0)).ravel() for at in block])


def transitions(split: Split, held: HeldOut, *, items: int) -> Scorer:
    """What others touched right after the user's last item (a Markov chain of first order)."""
    log = split.train[["user_id", "item"]].drop_duplicates()  # in the order of time
    log = log.sort_values("user_id", kind="stable")
    item, user = log["item"].to_numpy(), log["user_id"].to_numpy()
    same = user[1:] == user[:-1]
    ones = np.ones(int(same.sum()), np.float32)
    follows = scipy.sparse.csr_matrix((ones, (item[:-1][same], item[1:][same])), shape=(items, items))
    last = dict(zip(user, item, strict=True))
    rows = np.array([last.get(name, 0) for name in held.users])
    return lambda block: follows[rows[block]].toarray()


def user_knn(split: Split, held: HeldOut, *, items: int) -> Scorer:
    """What the 100 users nearest by cosine touched, each weighing its cosine."""
    matrix, ids = _binary(split, items)
    row_of = {name: row for row, name in enumerate(ids)}
    rows = np.array([row_of.get(name, 0) for name in held.users])

    def scores(block: np.ndarray) -> np.ndarray:
        near = cosine_similarity(matrix[rows[block]], matrix)
        near[np.arange(len(block)), rows[block]] = 0
        width = min(NEIGHBOURS, near.shape[1])
        cut = -np.partition(-near, width - 1, axis=1)[:, width - 1 : width]
        nearest = scipy.sparse.csr_matrix(np.where(near >= np.maximum(cut, 1e-9), near, 0))
        return np.asarray((nearest @ matrix).toarray())

    return scores


def factors(trained: Trained, held: HeldOut) -> Scorer:
    """Factor scores alone; zero for users that training does not know."""
    row_of = {user: row for row, user in enumerate(trained.users)}
    rows = np.array([row_of.get(user, -1) for user in held.users])
    users = np.where(rows[:, None] >= 0, trained.arrays["user_factors"][rows], 0.0)
    return lambda block: users[block] @ trained.arrays["item_factors"].T


def likeness(vectors: np.ndarray, held: HeldOut) -> Scorer:
    """Items nearest to the mean of the user's own. vectors: (items, d), NaN where unknown."""
    known = np.nan_to_num(vectors)
    return lambda block: np.stack([_mean(known, held.seen[at]) for at in block]) @ known.T


def truth(utility: np.ndarray, rows: np.ndarray) -> Scorer:
    """The best possible ranking, by the utility that made the log. rows: (users,) its row of each user."""
    return lambda block: utility[rows[block]]


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


def _mean(vectors: np.ndarray, rows: np.ndarray) -> np.ndarray:
    mean: np.ndarray = vectors[rows].mean(axis=0) if len(rows) else np.zeros(vectors.shape[1], vectors.dtype)
    return mean


def _binary(split: Split, items: int) -> tuple[scipy.sparse.csr_matrix, np.ndarray]:
    """users x items, and the user ids in the order of the rows."""
    pairs = split.train[["user_id", "item"]].drop_duplicates()
    ids, users = np.unique(pairs["user_id"].to_numpy(dtype=str), return_inverse=True)
    ones = np.ones(len(pairs), np.float32)
    return scipy.sparse.csr_matrix((ones, (users, pairs["item"])), shape=(len(ids), items)), ids


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


def judge(scorer: Scorer, held: HeldOut, *, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Rank the candidates that each user has not seen -> rows (users, k), and AUC (users,)."""
    ranked, areas = [], []
    for start in range(0, len(held.users), BLOCK):
        block = np.arange(start, min(start + BLOCK, len(held.users)))
        scores = np.array(scorer(block), dtype=np.float32)
        scores[:, ~held.candidates] = -np.inf
        for line, at in zip(scores, block, strict=True):
            line[held.seen[at]] = -np.inf
            asked = np.isfinite(line)
            areas.append(auc(line[asked], np.isin(np.flatnonzero(asked), held.relevant[at])))
        ranked.append(top(scores, k))
    return np.concatenate(ranked), np.array(areas)
