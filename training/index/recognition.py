"""How sure landmarks that agree make that a photo shows an item: fitted on photos of items, and of what is none."""

import numpy as np
from sklearn.linear_model import LogisticRegression

from service.recommender.index.gallery import CANDIDATES, Gallery
from service.recommender.index.landmarks import Landmarks, agreement, find, mirrored
from service.recommender.index.recognition import Certainty
from training.progress import say, track

MISTAKEN = 0.01  # of photos of something else that may be taken for an item
FEWEST = 20  # photos to fit on


def fit(gallery: Gallery, own: np.ndarray, pixels: np.ndarray) -> dict[str, float] | None:
    """What the manifest says of `match`; None where there are too few photos to learn it.

    own: (m,) the position of the picture that each photo was made of; pixels: (m, side, side, 3) uint8, augmented.
    Each photo is asked twice: with its picture there, and as if it showed something else."""
    if len(own) < FEWEST or len(gallery) <= CANDIDATES:
        return None
    right, wrong = [], []
    for position, each in track(list(zip(own.tolist(), pixels, strict=True)), "recognising items"):
        looks = [find(each), mirrored(each)]
        # a photo of something new may be as sharp and as plain as the catalogue's own pictures are
        plain = _agreements(gallery, [gallery.picture(position)])
        found = _agreements(gallery, looks)
        right.append(max((agreed for at, agreed in found if at == position), default=0))
        wrong += [max((agreed for at, agreed in each if at != position), default=0) for each in (found, plain)]
    return _fitted(np.array(right), np.array(wrong))


def _agreements(gallery: Gallery, looks: list[Landmarks]) -> list[tuple[int, int]]:
    """The pictures that are likely for a photo or its mirror image, one more than serving holds it against, and how
    many corners agree."""
    return [
        (position, agreement(look, gallery.picture(position)))
        for look in looks
        for position in next(gallery.likely(look, k=CANDIDATES + 1))
    ]


def _fitted(right: np.ndarray, wrong: np.ndarray) -> dict[str, float]:
    """right: (m,) agreements of photos with the item that they show; wrong: (n,) the most with any other."""
    features = np.log1p(np.concatenate([right, wrong]))[:, None]
    is_right = np.arange(len(features)) < len(right)
    # photos of items and of others are to weigh alike
    learned = LogisticRegression(C=1e3, max_iter=1000, class_weight="balanced").fit(features, is_right)
    certainty = Certainty(float(learned.coef_[0, 0]), float(learned.intercept_[0]), 0.0)
    # one corner more than what is mistaken
    fewest = int(np.quantile(wrong, 1 - MISTAKEN, method="higher")) + 1
    at = max(0.5, certainty.of(fewest) - 1e-9)
    found = float(np.mean([certainty.of(each) >= at for each in right.tolist()]))
    mistaken = float(np.mean([certainty.of(each) >= at for each in wrong.tolist()]))
    say(f"index: {100 * found:.0f} % of photographed items are recognised, {100 * mistaken:.1f} % of others mistaken")
    return {
        "agreement": certainty.agreement, "bias": certainty.bias, "at": at, "found": found, "mistaken": mistaken,
    }  # fmt: skip
