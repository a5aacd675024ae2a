"""Finds how the columns of a table become vectors: vocabularies, scales, word weights."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from service.recommender.catalogue.features import Column, Features, as_numbers, parts, word_buckets

MAX_VALUES = 200  # of a vocabulary; rarer values are as if absent
MAX_CODES = 32  # whole numbers of so few different values name groups (an occupation, an age band)
TEXT_BUCKETS = 256
MIN_COUNT = 2  # a value of one row alone tells nothing about others


def learn(table: Mapping[str, Sequence[Any]], kinds: Mapping[str, str], *, min_count: int = MIN_COUNT) -> Features:
    """Find vocabularies and scales. table: column -> values; kinds: the columns to use, and what they are
    (category | tags | boolean | number | text); min_count: rows that must share a value for it to be named.
    A column that cannot tell rows apart is left out."""
    columns = (_learn(name, kind, table[name], min_count) for name, kind in kinds.items())
    return Features(tuple(column for column in columns if column.width))


def _learn(name: str, kind: str, values: Sequence[Any], min_count: int) -> Column:
    if kind == "number":
        return _learn_number(name, values, min_count)
    if kind == "text":
        return _learn_text(name, values)
    counts = Counter(part for value in values for part in parts(value))
    return Column(name, kind, values=_telling(counts, len(values), min_count))


def _telling(counts: Mapping[str, int], rows: int, min_count: int) -> tuple[str, ...]:
    """The most frequent values, equal ones by name, but those of too few rows and those that all rows share."""
    common = sorted(counts, key=lambda value: (-counts[value], value))[:MAX_VALUES]
    return tuple(sorted(value for value in common if min_count <= counts[value] < rows))


def _learn_number(name: str, values: Sequence[Any], min_count: int) -> Column:
    numbers = as_numbers(values)
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
        seen.update(set(word_buckets(value, TEXT_BUCKETS)))
    if not seen:
        return Column(name, "category")
    weights = tuple(
        round(math.log((1 + len(values)) / (1 + seen[bucket])), 6) if seen[bucket] else 0.0
        for bucket in range(TEXT_BUCKETS)
    )
    return Column(name, "text", weights=weights)
