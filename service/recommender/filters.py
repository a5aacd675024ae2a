"""Which items pass a filter: a list means any of, an object {"min", "max"} a range, a single value equality."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from service.errors import BadQuery, is_number, shown

TYPES: Mapping[str, pa.DataType] = {
    "number": pa.float64(),
    "boolean": pa.bool_(),
    "category": pa.string(),
    "tags": pa.list_(pa.string()),
}


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
