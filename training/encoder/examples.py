"""Which pictures the encoder learns from, which it is validated on, and what says that two are alike."""

import hashlib

import numpy as np
import scipy.sparse

from service.errors import CatalogueError
from training.data.catalogue import Catalogue
from training.data.pictures import Pictures
from training.data.split import HELD_OUT_SPLITS
from training.encoder import batches
from training.encoder.batches import Examples
from training.progress import say

VALIDATION = ("validation", "val")
VALIDATED = 0.1  # of the pictures, where no column says which


def make(
    catalogue: Catalogue,
    pictures: Pictures,
    touched: scipy.sparse.csr_matrix | None,
    *,
    split_column: str | None,
    seed: int,
) -> Examples:
    """touched: (users, items) bool, where a user touched an item in training; None without interactions.

    Raises CatalogueError where the split column is not there, or says nothing."""
    excluded = {split_column} if split_column else set()
    labels = batches.labels_of(catalogue, pictures.rows, exclude=excluded)
    train, validation = _split(catalogue, pictures.rows, split_column, seed)
    alike = None
    if touched is not None:
        alike = batches.keep(batches.co_touched(touched, pictures.rows), train)
    elif not labels.columns:  # nothing says what is alike: learn that two views of one picture are
        alike = np.full((len(pictures.rows), 1), -1)
    say(f"encoder: learns from {', '.join(labels.columns) or 'pictures alone'}, {len(train)} pictures")
    return Examples(pictures, labels, train, validation, alike)


def digest_of(touched: scipy.sparse.csr_matrix | None) -> str:
    """sha256 of which pairs there are; empty without interactions."""
    return "" if touched is None else hashlib.sha256(touched.indptr.tobytes() + touched.indices.tobytes()).hexdigest()


def hold_out(things: np.ndarray, share: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Split positions into train and validation at random, those of one thing on one side. things: (n,) numbers."""
    order = rng.permutation(len(things))
    held = np.isin(things, things[order[: max(1, int(len(things) * share))]])
    return np.flatnonzero(~held), np.flatnonzero(held)


def _split(catalogue: Catalogue, rows: np.ndarray, column: str | None, seed: int) -> tuple[np.ndarray, np.ndarray]:
    things = catalogue.things()[rows]
    if column is None:
        return hold_out(things, VALIDATED, np.random.default_rng(seed))
    if column not in catalogue.items:
        raise CatalogueError(f"--split-column: items has no column {column!r}")
    part = catalogue.items[column].astype(str).str.lower().to_numpy()[rows]
    # rows that the column says nothing of are held out by nobody, and teach as well
    train = np.flatnonzero(~np.isin(part, HELD_OUT_SPLITS))
    validation = np.flatnonzero(np.isin(part, VALIDATION))
    # a picture that is nearly one of those held out would give it away
    held = np.isin(things, things[np.isin(part, HELD_OUT_SPLITS)])
    train = train[~held[train]]
    if not (part == "train").any() or not len(validation):
        raise CatalogueError(
            f"--split-column {column} must say train, validation (or val) and test; it has {sorted(set(part))[:5]}"
        )
    return train, validation
