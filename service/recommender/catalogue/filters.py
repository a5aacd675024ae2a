"""Which items pass a filter: a list means any of, an object {"min", "max"} a range, a single value equality."""

import json
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from service.errors import BadQuery, is_number, shown
from service.recommender.changes.growing import Growing

REMEMBERED = 64  # filters
MOST_CHANGES = 50_000  # after which masks are made anew

TYPES: Mapping[str, pa.DataType] = {
    "number": pa.float64(),
    "boolean": pa.bool_(),
    "category": pa.string(),
    "tags": pa.list_(pa.string()),
}


@dataclass(slots=True)
class _Mask:
    """The items that pass one filter, and how many changes it takes account of."""

    passing: Growing
    seen: int = 0


class Masks:
    """Which items pass the filters that were asked for of late. A mask is brought up to date, not made anew."""

    def __init__(self, table: pa.Table, kinds: Mapping[str, str]) -> None:
        """table: of the items that do not change; kinds: as for `passing`, with the columns that come since."""
        self._table, self._kinds = table, kinds
        self._journal: list[int] = []  # rows in the order in which they were changed
        self._masks: OrderedDict[str, _Mask] = OrderedDict()
        self._masking = threading.Lock()

    def changed(self, row: int) -> None:
        """An item came, got other values, or went."""
        self._journal.append(row)
        if len(self._journal) > MOST_CHANGES:
            self._journal.clear()
            self._masks.clear()

    def of(self, filter: Mapping[str, Any], values: Mapping[int, Mapping[str, Any]], there: np.ndarray) -> np.ndarray:
        """Which items pass: (items,) bool. Raises BadQuery.

        values: of the items that came or changed, by row; there: (items,) bool, which were not withdrawn."""
        try:
            key = json.dumps(filter, sort_keys=True)
        except RecursionError as error:
            raise BadQuery("filter: nested too deeply", field="filter") from error
        filter = json.loads(key)
        with self._masking:
            if (found := self._masks.get(key)) is None:
                found = self._masks[key] = _Mask(Growing(passing(self._table, self._kinds, filter)))
                changed = list(dict.fromkeys([*values, *np.flatnonzero(~there).tolist()]))
            else:
                changed = list(dict.fromkeys(self._journal[found.seen :]))
            found.passing.extend_to(len(there), False)
            if changed:
                self._look_again(found.passing.array, filter, values, changed)
            found.seen = len(self._journal)
            self._masks.move_to_end(key)
            while len(self._masks) > REMEMBERED:
                self._masks.popitem(last=False)
            mask = found.passing.array
        mask.flags.writeable = False
        return mask

    def _look_again(
        self, mask: np.ndarray, filter: Mapping[str, Any], values: Mapping[int, Mapping[str, Any]], rows: list[int]
    ) -> None:
        mask[rows] = False
        there = [row for row in rows if row in values]
        if not there:
            return
        columns = {
            name: pa.array([values[row].get(name) for row in there], TYPES[self._kinds[name]])
            for name in filter if name in self._kinds
        }  # fmt: skip
        mask[there] = passing(pa.table(columns), self._kinds, filter)


def passing(table: pa.Table, kinds: Mapping[str, str], filter: Mapping[str, Any]) -> np.ndarray:
    """(n,) bool: the rows of a table for which all conditions hold. Raises BadQuery.

    kinds: column -> number | boolean | category | tags; of a column that the table lacks every value is unknown, which
    passes nothing."""
    found = np.ones(len(table), dtype=bool)
    for column, condition in filter.items():
        if column not in kinds:
            known = ", ".join(f"{name} ({kind})" for name, kind in sorted(kinds.items()))
            raise BadQuery(f"filter: no column {shown(column)}; there are {known}", field="filter")
        values = table[column] if column in table.column_names else None
        if isinstance(condition, dict):
            found &= _range(column, kinds[column], values, condition)
        else:
            found &= _any_of(column, kinds[column], values, condition)
    return found


def _any_of(column: str, kind: str, values: pa.ChunkedArray | None, condition: Any) -> np.ndarray | bool:
    wanted = condition if isinstance(condition, list) else [condition]
    expected: tuple[type, ...] = {"number": (int, float), "boolean": (bool,)}.get(kind, (str,))
    for value in wanted:
        if not isinstance(value, expected) or (kind == "number" and not is_number(value)):
            names = " or ".join(t.__name__ for t in expected)
            raise BadQuery(f"filter: {column} is a {kind}; expected {names}, got {shown(value)}", field="filter")
    if values is None:
        return False
    if kind == "number":
        wanted = [float(value) for value in wanted]  # as the column has them; Arrow refuses what would be rounded
    if kind == "tags":
        lists = values.combine_chunks()
        inside = pc.is_in(lists.flatten(), value_set=pa.array(wanted, pa.string())).to_numpy(zero_copy_only=False)
        found = np.zeros(len(values), dtype=bool)
        found[lists.value_parent_indices().to_numpy()[inside]] = True
        return found
    matches = pc.is_in(values, value_set=pa.array(wanted, values.type))
    return np.asarray(matches.combine_chunks().to_numpy(zero_copy_only=False), dtype=bool)


def _range(column: str, kind: str, values: pa.ChunkedArray | None, condition: Mapping[str, Any]) -> np.ndarray | bool:
    bounds_ok = condition and set(condition) <= {"min", "max"}
    numbers_ok = all(is_number(v) for v in condition.values())
    if kind != "number" or not bounds_ok or not numbers_ok:
        raise BadQuery(
            f'filter: a range is {{"min": number, "max": number}} on a column of numbers; '
            f"{column} is a {kind} and the range is {shown(dict(condition))}",
            field="filter",
        )
    if values is None:
        return False
    numbers = values.to_numpy()
    with np.errstate(invalid="ignore"):
        found: np.ndarray = (numbers >= condition.get("min", -np.inf)) & (numbers <= condition.get("max", np.inf))
    return found
