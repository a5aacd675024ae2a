"""The factor of an item that nobody has touched: what its picture and its attributes let expect (`W f_i`)."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from service.recommender.catalogue.features import Features, item_features


class ItemPrior:
    """What the factorization learned of items from their features."""

    def __init__(self, features: Features, weights: np.ndarray) -> None:
        """weights: W, (dim + features.width, factors); the first dim rows are the picture's."""
        self._features, self._weights = features, weights

    @classmethod
    def open(cls, folder: Path) -> "ItemPrior | None":
        """Open features.json and ranker/item_prior.npy of a release, or None where it has none."""
        path = folder / "ranker" / "item_prior.npy"
        described = json.loads((folder / "features.json").read_text()).get("item_features")
        if described is None or not path.exists():
            return None
        return cls(Features.from_json(described), np.load(path, allow_pickle=False))

    def factor(self, attributes: Mapping[str, Any], vector: np.ndarray | None) -> np.ndarray:
        """attributes: title, category and columns by name; vector: of the item's first picture, (dim,), or None
        -> (factors,) float32."""
        dim = len(self._weights) - self._features.width
        found: np.ndarray = item_features(self._features, attributes, vector, dim=dim) @ self._weights
        return found.astype(np.float32)
