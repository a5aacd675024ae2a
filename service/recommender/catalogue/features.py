"""Raw values -> vectors: categories, tags, booleans, numbers and titles of an item, or the profile of a user.

What training found (vocabularies, scales, word weights) is stored in features.json; serving, retraining and evaluation
turn values into the very same vectors. No scikit-learn, no pickle.
"""

import math
import re
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

WORD = re.compile(r"[^\W_]+")


@dataclass(frozen=True, slots=True)
class Column:
    """One column and how it becomes a block of the vector.

    kind: category | tags | boolean | number | text. values: the vocabulary of the first three;
    mean, scale, log: of a number, whose logarithm is taken where it is positive and skewed;
    weights: inverse document frequency of each text bucket."""

    name: str
    kind: str
    values: tuple[str, ...] = ()
    mean: float = 0.0
    scale: float = 1.0
    log: bool = False
    weights: tuple[float, ...] = ()

    @property
    def width(self) -> int:
        """How many dimensions the block has."""
        return {"number": 1, "text": len(self.weights)}.get(self.kind, len(self.values))

    def names(self) -> list[str]:
        """A name for each dimension, such as `category=dress`."""
        if self.kind == "number":
            return [self.name]
        if self.kind == "text":
            return [f"{self.name}#{bucket}" for bucket in range(self.width)]
        return [f"{self.name}={value}" for value in self.values]

    def encode(self, values: Sequence[Any]) -> np.ndarray:
        """(n,) raw values -> (n, width) float32; zeros where a value is absent or was never seen in training."""
        if self.kind == "number":
            return self._numbers(values)
        if self.kind == "text":
            return self._texts(values)
        place = {value: at for at, value in enumerate(self.values)}
        block = np.zeros((len(values), self.width), np.float32)
        for row, value in enumerate(values):
            found = [place[part] for part in parts(value) if part in place]
            if found:
                block[row, found] = len(found) ** -0.5  # unit length, however many tags there are
        return block

    def _numbers(self, values: Sequence[Any]) -> np.ndarray:
        numbers = as_numbers(values)
        if self.log:
            numbers = np.log1p(np.maximum(numbers, 0.0))
        scaled = np.clip((numbers - self.mean) / self.scale, -3, 3)
        return np.nan_to_num(scaled).astype(np.float32)[:, None]

    def _texts(self, values: Sequence[Any]) -> np.ndarray:
        block = np.zeros((len(values), self.width), np.float32)
        for row, value in enumerate(values):
            for bucket, count in Counter(word_buckets(value, self.width)).items():
                block[row, bucket] = (1 + math.log(count)) * self.weights[bucket]
        length = np.linalg.norm(block, axis=1, keepdims=True)
        unit: np.ndarray = block / np.maximum(length, 1e-9)
        return unit


@dataclass(frozen=True, slots=True)
class Features:
    """The columns of one table, in the order of their blocks."""

    columns: tuple[Column, ...]

    @classmethod
    def from_json(cls, columns: Sequence[Mapping[str, Any]]) -> "Features":
        """What `to_json` gave. Raises TypeError, KeyError where it is something else."""
        return cls(
            tuple(
                Column(**{**column, "values": tuple(column["values"]), "weights": tuple(column["weights"])})
                for column in columns
            )
        )

    def to_json(self) -> list[dict[str, Any]]:
        """Plain values for features.json."""
        return [asdict(column) for column in self.columns]

    @property
    def width(self) -> int:
        """Dimensions of a vector."""
        return sum(column.width for column in self.columns)

    def names(self) -> list[str]:
        """A name for each dimension."""
        return [name for column in self.columns for name in column.names()]

    def encode(self, table: Mapping[str, Sequence[Any]], rows: int) -> np.ndarray:
        """column -> (rows,) raw values; absent columns count as absent values -> (rows, width) float32."""
        blocks = [column.encode(table.get(column.name, [None] * rows)) for column in self.columns]
        return np.concatenate(blocks, axis=1) if blocks else np.zeros((rows, 0), np.float32)


def item_features(
    features: Features, attributes: Mapping[str, Any], vector: np.ndarray | None, *, dim: int
) -> np.ndarray:
    """What the prior of one item's factor rests on (f_i; `W f_i` is the factor where nobody has touched the item): its
    picture first, then its columns.

    features: `item_features` of features.json; attributes: title, category and columns, as a catalogue has them;
    vector: (dim,) of its first picture, or None; dim: 0 for a release without pictures -> (dim + width,) float32."""
    picture = np.zeros(dim, np.float32) if vector is None else vector
    columns = features.encode({name: [value] for name, value in attributes.items()}, 1)
    return np.concatenate([picture, columns[0]])


def as_numbers(values: Sequence[Any]) -> np.ndarray:
    """(n,) float64, NaN where a value is absent, infinite or no number."""
    numbers = np.full(len(values), np.nan)
    for row, value in enumerate(values):
        if isinstance(value, int | float | np.number) and not isinstance(value, bool) and math.isfinite(value):
            numbers[row] = value
    return numbers


def parts(value: Any) -> list[str]:
    """The values of a cell: none, one, or several tags."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return []
    if isinstance(value, bool | np.bool_):
        return ["true" if value else "false"]
    if isinstance(value, int | float):
        return [f"{value:g}"]
    if isinstance(value, list | tuple | np.ndarray):
        return list(dict.fromkeys(str(part) for part in value))
    return [str(value)]


def word_buckets(value: Any, buckets: int) -> list[int]:
    """Hashed words of a text (Weinberger et al., 2009). crc32 is the same everywhere, unlike Python's hash."""
    words = WORD.findall(str(value).lower()) if isinstance(value, str) else []
    return [zlib.crc32(word.encode()) % buckets for word in words]
