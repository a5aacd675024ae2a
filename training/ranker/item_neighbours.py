"""Items beside items, each a sparse matrix of a few neighbours: what is touched on the same occasions, and what is
touched by the same people."""

import numpy as np
import pandas as pd
import scipy.linalg
import scipy.sparse

from service.recommender.factors import DISMISS
from training.data.times import DAY

NEAREST = 100  # neighbours kept of each item
LARGEST = 200  # items of one occasion; whoever touches more at once is no user
OFTEN = 2.0  # occasions that each pair is credited with not having had, so that chance does not lead
MOST_DENSE = 8000  # items; the inverse of more takes minutes and gigabytes
RIDGE = 200.0  # of EASE
DAMPED = 10.0  # people whom each pair is credited with not having had
SMALL = 1e-4  # weights below it are none
SEVERAL = 0.1  # share of occasions with several items, from which a day is an occasion


def together(interactions: pd.DataFrame, *, items: int) -> scipy.sparse.csr_matrix:
    """items x items, float32: how much oftener than by chance two items are touched on one occasion, a user's day;
    all that a user touched where days hold one item alone. 0 to 1: the cosine of the occasions of both, damped.

    interactions: in the order of time."""
    touches = interactions[interactions["event"] != DISMISS]
    user = pd.factorize(touches["user_id"])[0].astype(np.int64)
    day = touches["timestamp"].to_numpy() // DAY
    occasion = pd.factorize(pd.MultiIndex.from_arrays([user, day]))[0] if len(touches) else user
    pairs = pd.DataFrame({"occasion": occasion, "user": user, "item": touches["item"].to_numpy()})
    days = pairs.drop_duplicates(["occasion", "item"])
    sizes = days.groupby("occasion").size()
    if len(sizes) and (sizes > 1).mean() < SEVERAL:
        days = pairs.assign(occasion=pairs["user"]).drop_duplicates(["occasion", "item"])
    size_of = days.groupby("occasion")["item"].transform("size")
    days = days[(size_of > 1) & (size_of <= LARGEST)]
    rows, columns = days["occasion"].to_numpy(), days["item"].to_numpy()
    shape = (int(rows.max(initial=-1)) + 1, items)
    occasions = scipy.sparse.csr_matrix((np.ones(len(rows), np.float32), (rows, columns)), shape=shape)
    counts = (occasions.T @ occasions).tocsr()
    counts.setdiag(0)
    counts.eliminate_zeros()
    often = np.asarray(occasions.sum(axis=0)).ravel()
    of = np.repeat(np.arange(items), np.diff(counts.indptr))
    damped = counts.data / (np.sqrt(often[of] * often[counts.indices]) + OFTEN)
    return nearest(scipy.sparse.csr_matrix((damped, counts.indices, counts.indptr), shape=counts.shape))


def item_to_item(matrix: scipy.sparse.csr_matrix) -> scipy.sparse.csr_matrix:
    """items x items, float32: row j says how much having touched j speaks for each other item. The closed form of EASE
    (Steck, 2019); where the dense inverse is too large, the cosine of the people who touched both, damped.

    matrix: users x items, positive where touched and liked."""
    liked = (matrix > 0).astype(np.float64)
    gram = (liked.T @ liked).tocsr()
    counts = gram.diagonal()
    if len(counts) > MOST_DENSE:
        gram.setdiag(0)
        gram.eliminate_zeros()
        of = np.repeat(np.arange(len(counts)), np.diff(gram.indptr))
        damped = gram.data / (np.sqrt(counts[of] * counts[gram.indices]) + DAMPED)
        return nearest(scipy.sparse.csr_matrix((damped, gram.indices, gram.indptr), shape=gram.shape))
    dense = gram.toarray()
    dense[np.diag_indices_from(dense)] += RIDGE
    inverse = scipy.linalg.inv(dense, overwrite_a=True, check_finite=False)
    weights = inverse / -np.diag(inverse)
    np.fill_diagonal(weights, 0)
    weights[weights < SMALL] = 0
    return nearest(scipy.sparse.csr_matrix(weights))


def arrays(name: str, matrix: scipy.sparse.csr_matrix) -> dict[str, np.ndarray]:
    """File name -> array, as `Ranker.open` reads them. matrix: (items, items)."""
    return {
        f"{name}_indptr": matrix.indptr.astype(np.int64), f"{name}_items": matrix.indices,
        f"{name}_weights": matrix.data,
    }  # fmt: skip


def nearest(matrix: scipy.sparse.csr_matrix) -> scipy.sparse.csr_matrix:
    """The NEAREST largest weights of each row, largest first, equal ones in the order of items."""
    kept_items, kept_weights, lengths = [], [], []
    for start, end in zip(matrix.indptr[:-1], matrix.indptr[1:], strict=True):
        items, weights = matrix.indices[start:end], matrix.data[start:end]
        order = np.lexsort((items, -weights))[:NEAREST]
        kept_items.append(items[order])
        kept_weights.append(weights[order])
        lengths.append(len(order))
    indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    items = np.concatenate([np.empty(0, np.int32), *kept_items]).astype(np.int32)
    weights = np.concatenate([np.empty(0, np.float32), *kept_weights]).astype(np.float32)
    return scipy.sparse.csr_matrix((weights, items, indptr), shape=matrix.shape)
