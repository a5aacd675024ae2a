"""The catalogue as a release holds it, and what was changed since: ids, titles, attributes, what passes a filter."""

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from service.errors import NotFound
from service.recommender.catalogue.filters import Masks
from service.recommender.changes.growing import Growing

POPULARITY, PICTURED = "_popularity", "_pictured"
SAME = "_same"  # (int32) items with nearly the same picture have the same number; 0: no other has it
GROUP = "group"  # the column of the catalogue that says which items are variants of one product
NAMED = ("item_id", "title", "category")  # what is said of an item beside its attributes


@dataclass(slots=True)
class _Numbers:
    """A column of names as numbers, from 1 on, 0 where an item has none."""

    codes: Growing
    known: dict[str, int] = field(default_factory=dict)

    def number(self, value: Any) -> int:
        """Of several values the first."""
        if isinstance(value, list):
            value = value[0] if value else None
        return 0 if value is None else self.known.setdefault(value, len(self.known) + 1)


class Items:
    """One row an item. `kinds`: filterable column -> number | boolean | category | tags.

    Items may be put, changed and withdrawn: one that comes anew gets a row after all others, and keeps it. Who reads
    meanwhile is kept apart by the recommender's lock."""

    def __init__(self, table: pa.Table, kinds: Mapping[str, str]) -> None:
        self._table = table.combine_chunks()
        self.kinds = dict(kinds)
        self.ids: list[str] = table["item_id"].to_pylist()
        self.sealed = len(self.ids)  # items of the release itself
        self._rows = {item_id: row for row, item_id in enumerate(self.ids)}
        self._popularity = Growing(table[POPULARITY].to_numpy().astype(np.float32))
        self.sealed_pictured: np.ndarray = table[PICTURED].to_numpy(zero_copy_only=False)
        self._pictured = Growing(np.array(self.sealed_pictured))
        # most popular first, equal ones in row order
        self._by_popularity = np.argsort(-self.popularity, kind="stable")
        self._risen: set[int] = set()  # rows that may be more popular than they were
        self._describe_sealed = lru_cache(maxsize=65_536)(self._read_sealed)
        self._shares: dict[str, dict[str, float]] = {}
        self._numbers: dict[str, _Numbers] = {}
        self._changed: dict[int, dict[str, Any]] = {}  # row -> all of its values
        self._there = Growing(np.ones(self.sealed, bool))
        self.withdrawn = 0
        self._masks = Masks(self._table, self.kinds)

    @classmethod
    def open(cls, path: Path, kinds: Mapping[str, str]) -> "Items":
        """Open items.parquet of a release."""
        return cls(pq.ParquetFile(path).read(), kinds)  # read_table would load pyarrow.dataset

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def popularity(self) -> np.ndarray:
        """(items,) float32: how many users touched each."""
        return self._popularity.array

    @property
    def pictured(self) -> np.ndarray:
        """(items,) bool: which have a picture."""
        return self._pictured.array

    @property
    def changed(self) -> int:
        """How many items are not as the release has them."""
        return len(self._changed) + self.withdrawn

    def row(self, item_id: str) -> int:
        """The row of an item. Raises NotFound, also of one that was withdrawn."""
        if (row := self.find(item_id)) is None:
            raise NotFound(f"this release holds no item {item_id!r}", field="item_id")
        return row

    def find(self, item_id: str) -> int | None:
        """The row of an item, or None; also of one that was withdrawn."""
        row = self._rows.get(item_id)
        return row if row is not None and self._there.array[row] else None

    def is_there(self, rows: np.ndarray) -> np.ndarray:
        """(n,) bool: which of these rows were not withdrawn."""
        there: np.ndarray = self._there.array[rows]
        return there

    def describe(self, row: int) -> dict[str, Any]:
        """item_id, title, category and attributes."""
        values = self._changed.get(row)
        if values is None:
            return self._describe_sealed(row)
        attributes = {name: values.get(name) for name in self.kinds if name != "category"}
        return {**{name: values.get(name) for name in NAMED}, "attributes": attributes}

    def sealed_values(self, row: int) -> dict[str, Any]:
        """What the release itself says of one of its items: title and every attribute by name."""
        described = self._read_sealed(row)
        return {**described["attributes"], "title": described["title"], "category": described["category"]}

    def _read_sealed(self, row: int) -> dict[str, Any]:
        def value(name: str) -> Any:
            if name not in self._table.column_names:  # it came with an item since
                return None
            found = self._table[name][row].as_py()
            return None if isinstance(found, float) and math.isnan(found) else found

        named = {name: value(name) for name in NAMED}
        return {**named, "attributes": {name: value(name) for name in self.kinds if name != "category"}}

    def put(self, item_id: str, values: Mapping[str, Any], *, pictured: bool) -> int:
        """Give an item these values, all that it has; returns its row, a new one where there was none.

        values: title and attributes by name, of the kinds that `kinds` says."""
        row = self._rows.get(item_id)
        if row is None:
            row = self._rows[item_id] = len(self.ids)
            self.ids.append(item_id)
            for column, value in ((self._popularity, 0.0), (self._pictured, False), (self._there, False)):
                column.extend_to(row + 1, value)
            self.withdrawn += 1  # which the next lines take back
        self.withdrawn -= int(not self._there.array[row])
        self._there.array[row], self._pictured.array[row] = True, pictured
        self._changed[row] = {**values, "item_id": item_id}
        if row >= self.sealed:
            self._risen.add(row)
        for name, numbers in self._numbers.items():
            numbers.codes.extend_to(row + 1, 0)
            numbers.codes.array[row] = numbers.number(values.get(name))
        self._masks.changed(row)
        return row

    def withdraw(self, row: int) -> None:
        """Have an item be there no more."""
        self.withdrawn += int(self._there.array[row])
        self._there.array[row] = False
        self._changed.pop(row, None)
        self._masks.changed(row)

    def touch(self, row: int) -> float:
        """One more user has touched an item; returns how many have."""
        self._risen.add(row)
        self._popularity.array[row] += 1
        return float(self._popularity.array[row])

    def add_column(self, name: str, kind: str) -> None:
        """A column that no item of the release has."""
        self.kinds[name] = kind
        self._describe_sealed.cache_clear()

    def most_popular(self, k: int, allowed: np.ndarray | None = None) -> np.ndarray:
        """The rows of the k most popular items, most popular first, equal ones in row order. allowed: (items,) bool."""
        order = self._by_popularity
        if allowed is not None:
            order = order[allowed[order]]
        if not self._risen:
            return order[:k]
        risen = np.array(sorted(self._risen))
        if allowed is not None:
            risen = risen[allowed[risen]]
        rows = np.union1d(order[: k + len(risen)], risen)
        found: np.ndarray = rows[np.argsort(-self.popularity[rows], kind="stable")][:k]
        return found

    def values(self, column: str, row: int) -> list[str]:
        """What one item has in a column: none, one or several values, as text."""
        changed = self._changed.get(row)
        value = self._table[column][row].as_py() if changed is None else changed.get(column)
        if isinstance(value, bool):
            return ["yes" if value else "no"]
        return [str(part) for part in value] if isinstance(value, list) else [] if value is None else [str(value)]

    def usual_shares(self, column: str) -> dict[str, float]:
        """value -> its share of all that users had touched when the release was made."""
        if column not in self._shares:
            counts: defaultdict[str, float] = defaultdict(float)
            for row in np.flatnonzero(self.popularity[: self.sealed]):
                for value in self.values(column, int(row)):
                    counts[value] += float(self.popularity[row])
            total = sum(counts.values())
            self._shares[column] = {value: count / total for value, count in counts.items()}
        return self._shares[column]

    def numbers(self, column: str) -> np.ndarray | None:
        """(sealed,) float64 values of a column of numbers, NaN where unknown; None where there is no such column."""
        if self.kinds.get(column) != "number" or column not in self._table.column_names:
            return None
        values: np.ndarray = self._table[column].to_numpy()
        return values

    def categories(self) -> np.ndarray:
        """(items,) int32: the number of each item's category, from 1 on, of several the first; 0 where it has none."""
        return self._numbered("category")

    def groups(self) -> np.ndarray | None:
        """(items,) int32: the number of the product that each item is a variant of, from 1 on, 0 where nothing says
        so; None where the catalogue has no such column."""
        return self._numbered(GROUP) if GROUP in self.kinds else None

    def same(self) -> np.ndarray | None:
        """(items,) int32: items with nearly the same picture have the same number, 0 has no other, as has every item
        that came since; None where that was not looked for."""
        if SAME not in self._table.column_names:
            return None
        if SAME not in self._numbers:
            self._numbers[SAME] = _Numbers(Growing(np.array(self._table[SAME].to_numpy())))
            self._numbers[SAME].codes.extend_to(len(self), 0)
        return self._numbers[SAME].codes.array

    def _numbered(self, name: str) -> np.ndarray:
        if name not in self._numbers:
            self._numbers[name] = found = _number(self._table, name)
            found.codes.extend_to(len(self), 0)
            for row, values in self._changed.items():
                found.codes.array[row] = found.number(values.get(name))
        return self._numbers[name].codes.array

    def column(self, name: str) -> list[Any]:
        """The raw values of a column, one an item of the release."""
        values: list[Any] = self._table[name].to_pylist()
        return values

    def mask(self, filter: Mapping[str, Any] | None) -> np.ndarray | None:
        """Which items are there and pass: (items,) bool, or None where that is all. All conditions must hold.

        As `filters.passing`. Raises BadQuery."""
        if not filter:
            return self._there.array if self.withdrawn else None
        return self._masks.of(filter, self._changed, self._there.array)


def _number(table: pa.Table, name: str) -> _Numbers:
    """The names of a column of the release as numbers, in the order in which they first come."""
    if name not in table.column_names:
        return _Numbers(Growing(np.zeros(len(table), np.int32)))
    column = table[name]
    if pa.types.is_list(column.type):
        column = pa.chunked_array(
            [pc.list_element(pc.if_else(pc.greater(pc.list_value_length(column), 0), column, None), 0)]
        )
    encoded = column.combine_chunks().dictionary_encode()
    codes: np.ndarray = pc.fill_null(pc.add(encoded.indices, 1), 0).to_numpy(zero_copy_only=False).astype(np.int32)
    return _Numbers(Growing(codes), {value: code for code, value in enumerate(encoded.dictionary.to_pylist(), 1)})
