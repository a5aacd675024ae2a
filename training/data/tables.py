"""A file of rows, CSV or Parquet -> columns of text, with the number of each row, and what could not be read of it.

Cells stay the text that they are: `007` is not 7, and 9007199254740993 keeps its last digit. What a cell means is found
out in training/data/columns.py.
"""

import csv
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from service.errors import CatalogueError
from training.data.csv_table import read_csv
from training.data.rows import ROW, Table, is_nothing, require_names

EXACT = 2**53  # whole numbers up to here survive a double
WHOLE_FLOAT = re.compile(r"-?[0-9]+\.0")


def read_table(folder: Path, name: str, *, required: Sequence[str], ids: Sequence[str]) -> Table | None:
    """Read NAME.parquet or NAME.csv, None where there is neither. ids: columns whose whole numbers are names.

    Raises CatalogueError where the file cannot be read, or lacks a required column."""
    parquet, text = folder / f"{name}.parquet", folder / f"{name}.csv"
    if parquet.exists() and text.exists():
        raise CatalogueError(f"{folder} holds both {parquet.name} and {text.name}; keep the one that is meant")
    path = parquet if parquet.exists() else text
    return read_file(path, name, required=required, ids=ids) if path.exists() else None


def read_file(path: Path, name: str, *, required: Sequence[str], ids: Sequence[str]) -> Table:
    """Read one file of rows, Parquet by its ending, else CSV; `name` is what messages call it. As `read_table`."""
    try:
        table = _parquet(path, name) if path.suffix == ".parquet" else read_csv(path, name, required)
    except (pa.ArrowException, OSError, UnicodeError, csv.Error) as error:
        raise CatalogueError(f"{name}: the file cannot be read: {_first_line(error)}") from error
    missing = [column for column in required if column not in table.frame.columns]
    if missing:
        there = ", ".join(map(str, table.frame.columns.drop(ROW)))
        raise CatalogueError(f"{path.name}: no column {', '.join(missing)}; the columns are {there}")
    return _with_ids(table, path, [column for column in ids if column in table.frame.columns])


def _parquet(path: Path, name: str) -> Table:
    table = pyarrow.parquet.read_table(path)
    notes = []
    names = [str(column).strip() for column in table.column_names]
    plain = [column for column in names if not re.fullmatch(r"__index_level_[0-9]+__", column)]
    if len(plain) < len(names):
        notes.append(f"{path.name}: pandas' index without a name is passed over")
    require_names(path, names, notes)
    frame = pd.DataFrame({column: _cells(table.column(names.index(column))) for column in plain}, dtype=object)
    frame[ROW] = np.arange(1, table.num_rows + 1)
    return Table(name, frame, table.num_rows, (), tuple(notes))


def _cells(column: pa.ChunkedArray) -> pd.Series:
    """A column of Parquet as text, lists of text, floats or times; whole numbers are text, digit for digit."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        column, kind = column.cast(kind.value_type), kind.value_type
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind) or pa.types.is_decimal(kind):
        return column.cast(pa.string()).to_pandas().astype(object)
    if pa.types.is_floating(kind):
        return column.cast(pa.float64()).to_pandas().astype(object)
    if pa.types.is_date(kind):
        return column.cast(pa.timestamp("us")).to_pandas()
    if pa.types.is_timestamp(kind):
        return pd.Series(pc.cast(column, pa.timestamp("us", kind.tz), safe=False).to_pandas())
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        cells: list[object] = [None if v is None else [str(p) for p in v if p is not None] for v in column.to_pylist()]
    elif pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        cells = [None if v is None else v.decode(errors="replace") for v in column.to_pylist()]
    else:
        cells = [None if v is None else str(v) for v in column.to_pylist()]
    return pd.Series(cells, dtype=object)


def _with_ids(table: Table, path: Path, columns: Sequence[str]) -> Table:
    """Ids as text without blanks around them. Where all of a column are whole floats, as pandas writes ids of a column
    with gaps, they are whole numbers."""
    frame, notes = table.frame.copy(), list(table.notes)
    for column in columns:
        texts = [None if is_nothing(v) else _id_text(v) for v in frame[column]]
        present = [text for text in texts if text is not None]
        if present and all(WHOLE_FLOAT.fullmatch(text) for text in present):
            texts = [None if text is None else text[:-2] for text in texts]
            notes.append(
                f"{path.name}: {column} holds numbers such as {present[0]}; they are read as {present[0][:-2]}"
            )
            if any(abs(int(text)) >= EXACT for text in texts if text is not None):
                raise CatalogueError(
                    f"{path.name}: {column} holds floating-point numbers beyond 2^53, whose last digits are lost; "
                    "write ids as text"
                )
        frame[column] = pd.Series(texts, dtype=object, index=frame.index)
    return replace(table, frame=frame, notes=tuple(notes))


def _id_text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.0f}.0" if value.is_integer() else str(value)
    return str(value).strip()


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0][:300] if str(error).strip() else type(error).__name__
