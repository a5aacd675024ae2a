"""How sure landmarks and a cosine make that a photo shows an item: fitted on photos of items, and of what is none."""

import numpy as np
from sklearn.linear_model import LogisticRegression

from service.index import Index
from service.recognition import CANDIDATES, Certainty, Gallery, agreement, find, mirrored
from training.progress import say, track

MISTAKEN = 0.01  # of photos of something else that may be taken for an item
SEEN = 0.99  # of photos of an item that the least cosine lets pass
FEWEST = 20  # photos to fit on


def fit(
    index: Index, gallery: Gallery, rows: np.ndarray, vectors: np.ndarray, pixels: np.ndarray
) -> dict[str, float] | None:
    """What the manifest says of `match`; None where there are too few photos to learn it.

    rows: (m,) the item that each photo shows; vectors: (m, dim); pixels: (m, side, side, 3) uint8, augmented.
    Each photo is asked twice: with its item there, and as if it were none of the catalogue's."""
    if len(rows) < FEWEST or len(index) <= CANDIDATES:
        return None
    own, others = [], []  # (agreement, cosine) of each photo with the item that it shows, and with those nearest to it
    for at in track(range(len(rows)), "recognising items"):
        looks = [find(pixels[at]), mirrored(pixels[at])]
        allowed = np.ones(index.shape[0], bool)
        allowed[rows[at]] = False
        near = index.search(vectors[at : at + 1], k=CANDIDATES, allowed=allowed)[0][0]
        own.append(_compare(index, gallery, looks, vectors[at], rows[at : at + 1])[0])
        others.append(_compare(index, gallery, looks, vectors[at], near[near >= 0]))
        # a photo of something new may be as sharp and as plain as the catalogue's own pictures are
        position = index.pictures(int(rows[at])).start
        vector = index.at(np.array([position]))[0]
        near = index.search(vector[None], k=CANDIDATES, allowed=allowed)[0][0]
        others.append(_compare(index, gallery, [gallery.picture(position)], vector, near[near >= 0]))
    return _fitted(np.array(own), [np.array(each) for each in others])


def _compare(
    index: Index, gallery: Gallery, looks: list, vector: np.ndarray, rows: np.ndarray
) -> list[tuple[float, float]]:
    """Agreement, of the photo or its mirror image, and cosine with the first picture of each item."""
    positions = [index.pictures(int(row)).start for row in rows]
    cosines = (index.at(np.array(positions, np.int64)) @ vector).tolist()
    return [
        (max(agreement(look, gallery.picture(position)) for look in looks), cosine)
        for position, cosine in zip(positions, cosines, strict=True)
    ]


def _fitted(own: np.ndarray, others: list[np.ndarray]) -> dict[str, float]:
    """own: (m, 2), of each photo; others: (candidates, 2) of each photo, and of its item's own picture after it."""
    every = np.concatenate([own, *others])
    features = np.column_stack([np.log1p(every[:, 0]), every[:, 1]])
    right = np.arange(len(every)) < len(own)
    # photos of items and of others are to weigh alike, however many candidates each was held against
    weights = np.where(right, 1 / len(own), 1 / (len(every) - len(own)))
    learned = LogisticRegression(C=1e3, max_iter=1000).fit(features, right, sample_weight=weights * len(every) / 2)
    (agreeing, cosine), bias = learned.coef_[0].tolist(), float(learned.intercept_[0])
    least = float(np.quantile(own[:, 1], 1 - SEEN))
    certainty = Certainty(max(agreeing, 0.0), max(cosine, 0.0), bias, 0.0, least)

    def most(pairs: np.ndarray) -> float:
        return max((certainty.of(int(a), c) for a, c in pairs.tolist() if c >= least), default=0.0)

    mistaken, sure = np.array([most(each) for each in others]), np.array([most(each[None]) for each in own])
    # just above what is mistaken: many photos have the very same few corners in common with something else
    at = float(max(0.5, np.nextafter(np.quantile(mistaken, 1 - MISTAKEN, method="higher"), 2)))
    found = float(((sure >= at) & (sure >= mistaken[::2])).mean())
    wrong = float((mistaken >= at).mean())
    say(f"index: {100 * found:.0f} % of photographed items are recognised, {100 * wrong:.1f} % of others taken for one")
    return {
        "agreement": certainty.agreement, "cosine": certainty.cosine, "bias": bias, "least_cosine": least, "at": at,
        "found": found, "mistaken": wrong,
    }  # fmt: skip
