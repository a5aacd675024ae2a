"""The catalogue as a release holds it: ids, titles, attributes, and which items pass a filter."""

import json
import math
from collections import defaultdict
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from service.errors import BadQuery, NotFound, is_number, shown

POPULARITY, PICTURED = "_popularity", "_pictured"
SAME = "_same"  # (int32) items with nearly the same picture have the same number; 0: no other has it
GROUP = "group"  # the column of the catalogue that says which items are variants of one product


class Items:
    """One row an item. `kinds`: filterable column -> number | boolean | category | tags."""

    def __init__(self, table: pa.Table, kinds: Mapping[str, str]) -> None:
        self._table = table.combine_chunks()
        self.kinds = dict(kinds)
        self.ids: list[str] = table["item_id"].to_pylist()
        self._rows = {item_id: row for row, item_id in enumerate(self.ids)}
        self.popularity = table[POPULARITY].to_numpy().astype(np.float32)
        self.pictured = table[PICTURED].to_numpy(zero_copy_only=False)
        # most popular first, equal ones in row order
        self.by_popularity = np.argsort(-self.popularity, kind="stable")
        self.describe = lru_cache(maxsize=65_536)(self._describe)
        self._shares: dict[str, dict[str, float]] = {}
        self._mask = lru_cache(maxsize=64)(self._compute_mask)

    @classmethod
    def open(cls, path: Path, kinds: Mapping[str, str]) -> "Items":
        """Open items.parquet of a release."""
        return cls(pq.ParquetFile(path).read(), kinds)  # read_table would load pyarrow.dataset

    def __len__(self) -> int:
        return len(self.ids)

    def row(self, item_id: str) -> int:
        """The row of an item. Raises NotFound."""
        if (row := self._rows.get(item_id)) is None:
            raise NotFound(f"this release holds no item {item_id!r}", field="item_id")
        return row

    def find(self, item_id: str) -> int | None:
        """The row of an item, or None."""
        return self._rows.get(item_id)

    def _describe(self, row: int) -> dict[str, Any]:
        def value(name: str) -> Any:
            found = self._table[name][row].as_py()
            return None if isinstance(found, float) and math.isnan(found) else found

        named = {name: value(name) for name in ("item_id", "title", "category")}
        return {**named, "attributes": {name: value(name) for name in self.kinds if name != "category"}}

    def values(self, column: str, row: int) -> list[str]:
        """What one item has in a column: none, one or several values, as text."""
        value = self._table[column][row].as_py()
        if isinstance(value, bool):
            return ["yes" if value else "no"]
        return [str(part) for part in value] if isinstance(value, list) else [] if value is None else [str(value)]

    def usual_shares(self, column: str) -> dict[str, float]:
        """value -> its share of all that users touched."""
        if column not in self._shares:
            counts: defaultdict[str, float] = defaultdict(float)
            for row in np.flatnonzero(self.popularity):
                for value in self.values(column, int(row)):
                    counts[value] += float(self.popularity[row])
            total = sum(counts.values())
            self._shares[column] = {value: count / total for value, count in counts.items()}
        return self._shares[column]

    def numbers(self, column: str) -> np.ndarray | None:
        """(items,) float64 values of a column of numbers, NaN where unknown; None where there is no such column."""
        if self.kinds.get(column) != "number":
            return None
        values: np.ndarray = self._table[column].to_numpy()
        return values

    def categories(self) -> np.ndarray:
        """(items,) int32: the number of each item's category, from 1 on, of several the first; 0 where it has none."""
        return self._numbered("category")

    def _numbered(self, name: str) -> np.ndarray:
        column = self._table[name]
        if pa.types.is_list(column.type):
            column = pa.chunked_array(
                [pc.list_element(pc.if_else(pc.greater(pc.list_value_length(column), 0), column, None), 0)]
            )
        numbers = column.combine_chunks().dictionary_encode().indices
        found: np.ndarray = pc.fill_null(pc.add(numbers, 1), 0).to_numpy(zero_copy_only=False).astype(np.int32)
        return found

    def groups(self) -> np.ndarray | None:
        """(items,) int32: the number of the product that each item is a variant of, from 1 on, 0 where nothing says
        so; None where the catalogue has no such column."""
        return self._numbered(GROUP) if GROUP in self.kinds else None

    def same(self) -> np.ndarray | None:
        """(items,) int32: items with nearly the same picture have the same number, 0 has no other; None where that was
        not looked for."""
        if SAME not in self._table.column_names:
            return None
        found: np.ndarray = self._table[SAME].to_numpy()
        return found

    def column(self, name: str) -> list[Any]:
        """The raw values of a column, one an item."""
        values: list[Any] = self._table[name].to_pylist()
        return values

    def mask(self, filter: Mapping[str, Any] | None) -> np.ndarray | None:
        """Which items pass: (items,) bool, or None where no filter is given. All conditions must hold.

        A list means any of, an object {"min", "max"} a range (ends included), a single value equality.
        Raises BadQuery."""
        if not filter:
            return None
        try:
            return self._mask(json.dumps(filter, sort_keys=True))
        except RecursionError as error:
            raise BadQuery("filter: nested too deeply", field="filter") from error

    def _compute_mask(self, filter_json: str) -> np.ndarray:
        passing = np.ones(len(self), dtype=bool)
        for column, condition in json.loads(filter_json).items():
            if column not in self.kinds:
                known = ", ".join(f"{name} ({kind})" for name, kind in sorted(self.kinds.items()))
                raise BadQuery(f"filter: no column {shown(column)}; there are {known}", field="filter")
            passing &= self._condition(column, condition)
        passing.flags.writeable = False
        return passing

    def _condition(self, column: str, condition: Any) -> np.ndarray:
        values, kind = self._table[column], self.kinds[column]
        if isinstance(condition, dict):
            return self._range(column, condition)
        wanted = condition if isinstance(condition, list) else [condition]
        expected: tuple[type, ...] = {"number": (int, float), "boolean": (bool,)}.get(kind, (str,))
        for value in wanted:
            if not isinstance(value, expected) or (kind == "number" and not is_number(value)):
                names = " or ".join(t.__name__ for t in expected)
                raise BadQuery(f"filter: {column} is a {kind}; expected {names}, got {shown(value)}", field="filter")
        if kind == "number":
            wanted = [float(value) for value in wanted]  # as the column has them; Arrow refuses what would be rounded
        if kind == "tags":
            lists = values.combine_chunks()
            inside = pc.is_in(lists.flatten(), value_set=pa.array(wanted, pa.string())).to_numpy(zero_copy_only=False)
            passing = np.zeros(len(self), dtype=bool)
            passing[lists.value_parent_indices().to_numpy()[inside]] = True
            return passing
        matches = pc.is_in(values, value_set=pa.array(wanted, values.type))
        return np.asarray(matches.combine_chunks().to_numpy(zero_copy_only=False), dtype=bool)

    def _range(self, column: str, condition: Mapping[str, Any]) -> np.ndarray:
        bounds_ok = condition and set(condition) <= {"min", "max"}
        numbers_ok = all(is_number(v) for v in condition.values())
        if self.kinds[column] != "number" or not bounds_ok or not numbers_ok:
            raise BadQuery(
                f'filter: a range is {{"min": number, "max": number}} on a column of numbers; '
                f"{column} is a {self.kinds[column]} and the range is {shown(dict(condition))}",
                field="filter",
            )
        values = self._table[column].to_numpy()
        with np.errstate(invalid="ignore"):
            return (values >= condition.get("min", -np.inf)) & (values <= condition.get("max", np.inf))


class Thumbnails:
    """Small JPEGs of the items, one after another in one memory-mapped file."""

    def __init__(self, path: Path, offsets: np.ndarray) -> None:
        """offsets: (items + 1,) int64; an item without a picture has length 0."""
        self._bytes = np.memmap(path, dtype=np.uint8, mode="r") if path.stat().st_size else np.empty(0, np.uint8)
        self._offsets = offsets

    def jpeg(self, row: int) -> bytes:
        """The picture of one item. Raises NotFound where there is none."""
        start, end = int(self._offsets[row]), int(self._offsets[row + 1])
        if start == end:
            raise NotFound("this item has no picture", field="item_id")
        return self._bytes[start:end].tobytes()
