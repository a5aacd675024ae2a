"""Rows of text, whatever file they came from."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from service.errors import CatalogueError

UNNAMED = "column "
ROW = "\0row"  # the column of row numbers: a name that no file can have


@dataclass(frozen=True, slots=True)
class Unusable:
    """One row that cannot be used. `row` counts data rows from 1, as a person would."""

    table: str
    row: int
    reason: str
    value: str


@dataclass(frozen=True, slots=True)
class Table:
    """What a file holds. frame: text or None (lists of text, numbers and times where Parquet has them), and ROW;
    rows: of the file; unusable: rows that are not in `frame`; notes: how it was read, where that was not plain."""

    name: str
    frame: pd.DataFrame
    rows: int
    unusable: tuple[Unusable, ...] = ()
    notes: tuple[str, ...] = field(default=())


def is_nothing(value: object) -> bool:
    """Whether a cell holds nothing: None, NaN, blanks, an empty list."""
    if isinstance(value, str):
        return not value.strip()
    if isinstance(value, list | tuple | np.ndarray):
        return len(value) == 0
    return value is None or value is pd.NA or value is pd.NaT or value != value


def require_names(path: Path, header: list[str], notes: list[str]) -> None:
    """Each column has a name of its own; nameless ones get their number. Raises CatalogueError."""
    for place, column in enumerate(header):
        if not column:
            header[place] = f"{UNNAMED}{place + 1}"
            notes.append(f"{path.name}: column {place + 1} has no name in the header")
    for column, count in Counter(header).items():
        if count > 1:
            places = " and ".join(str(place + 1) for place, other in enumerate(header) if other == column)
            raise CatalogueError(
                f"{path.name}: the header names {column!r} more than once (columns {places}); rename one"
            )
        if "\0" in column:
            raise CatalogueError(f"{path.name}: the name of a column holds a zero byte: {column!r}")
