"""Raw values -> vectors: categories, tags, booleans, numbers and titles of an item, or the profile of a user.

What `Features.learn` found (vocabularies, scales, word weights) is stored in features.json; serving, retraining and
evaluation turn values into the very same vectors. No scikit-learn, no pickle.
"""

import math
import re
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

MAX_VALUES = 200  # of a vocabulary; rarer values are as if absent
MAX_CODES = 32  # whole numbers of so few different values name groups (an occupation, an age band)
TEXT_BUCKETS = 256
MIN_COUNT = 2  # a value of one row alone tells nothing about others
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
            found = [place[part] for part in _parts(value) if part in place]
            if found:
                block[row, found] = len(found) ** -0.5  # unit length, however many tags there are
        return block

    def _numbers(self, values: Sequence[Any]) -> np.ndarray:
        numbers = _as_numbers(values)
        if self.log:
            numbers = np.log1p(np.maximum(numbers, 0.0))
        scaled = np.clip((numbers - self.mean) / self.scale, -3, 3)
        return np.nan_to_num(scaled).astype(np.float32)[:, None]

    def _texts(self, values: Sequence[Any]) -> np.ndarray:
        block = np.zeros((len(values), self.width), np.float32)
        for row, value in enumerate(values):
            for bucket, count in Counter(_buckets(value, self.width)).items():
                block[row, bucket] = (1 + math.log(count)) * self.weights[bucket]
        length = np.linalg.norm(block, axis=1, keepdims=True)
        unit: np.ndarray = block / np.maximum(length, 1e-9)
        return unit


@dataclass(frozen=True, slots=True)
class Features:
    """The columns of one table, in the order of their blocks."""

    columns: tuple[Column, ...]

    @classmethod
    def learn(
        cls, table: Mapping[str, Sequence[Any]], kinds: Mapping[str, str], *, min_count: int = MIN_COUNT
    ) -> "Features":
        """Find vocabularies and scales. table: column -> values; kinds: the columns to use, and what they are
        (category | tags | boolean | number | text); min_count: rows that must share a value for it to be named.
        A column that cannot tell rows apart is left out."""
        columns = (_learn(name, kind, table[name], min_count) for name, kind in kinds.items())
        return cls(tuple(column for column in columns if column.width))

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


def _learn(name: str, kind: str, values: Sequence[Any], min_count: int) -> Column:
    if kind == "number":
        return _learn_number(name, values, min_count)
    if kind == "text":
        return _learn_text(name, values)
    counts = Counter(part for value in values for part in _parts(value))
    return Column(name, kind, values=_telling(counts, len(values), min_count))


def _telling(counts: Mapping[str, int], rows: int, min_count: int) -> tuple[str, ...]:
    """The most frequent values, equal ones by name, but those of too few rows and those that all rows share."""
    common = sorted(counts, key=lambda value: (-counts[value], value))[:MAX_VALUES]
    return tuple(sorted(value for value in common if min_count <= counts[value] < rows))


def _learn_number(name: str, values: Sequence[Any], min_count: int) -> Column:
    numbers = _as_numbers(values)
    numbers = numbers[np.isfinite(numbers)]
    distinct = np.unique(numbers)
    if len(distinct) <= MAX_CODES and len(numbers) >= 10 * len(distinct) and (distinct == distinct.round()).all():
        counts = {f"{value:g}": int((numbers == value).sum()) for value in distinct}  # codes, not quantities
        return Column(name, "category", values=_telling(counts, len(values), min_count))
    if not len(numbers) or numbers.min() == numbers.max():
        return Column(name, "category")  # no width: tells nothing
    median = float(np.median(numbers))
    skewed = bool(numbers.min() >= 0 and numbers.max() - median > 5 * max(median - numbers.min(), 1e-9))
    if skewed:
        numbers = np.log1p(numbers)
    return Column(name, "number", mean=float(numbers.mean()), scale=float(max(numbers.std(), 1e-9)), log=skewed)


def _learn_text(name: str, values: Sequence[Any]) -> Column:
    seen: Counter[int] = Counter()
    for value in values:
        seen.update(set(_buckets(value, TEXT_BUCKETS)))
    if not seen:
        return Column(name, "category")
    weights = tuple(
        round(math.log((1 + len(values)) / (1 + seen[bucket])), 6) if seen[bucket] else 0.0
        for bucket in range(TEXT_BUCKETS)
    )
    return Column(name, "text", weights=weights)


def _as_numbers(values: Sequence[Any]) -> np.ndarray:
    """(n,) float64, NaN where a value is absent, infinite or no number."""
    numbers = np.full(len(values), np.nan)
    for row, value in enumerate(values):
        if isinstance(value, int | float | np.number) and not isinstance(value, bool) and math.isfinite(value):
            numbers[row] = value
    return numbers


def _parts(value: Any) -> list[str]:
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


def _buckets(value: Any, buckets: int) -> list[int]:
    """Hashed words of a text (Weinberger et al., 2009). crc32 is the same everywhere, unlike Python's hash."""
    words = WORD.findall(str(value).lower()) if isinstance(value, str) else []
    return [zlib.crc32(word.encode()) % buckets for word in words]
