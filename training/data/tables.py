"""A file of rows, CSV or Parquet -> columns of text, with the number of each row, and what could not be read of it.

Cells stay the text that they are: `007` is not 7, and 9007199254740993 keeps its last digit. What a cell means is found
out in training/data/columns.py.
"""

import csv
import io
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from service.errors import CatalogueError

ROW = "\0row"  # the column of row numbers: a name that no file can have
DELIMITERS = ",;\t|"
BLOCK = 16 * 1024 * 1024  # bytes that are parsed at once; a cell may not be longer
EXACT = 2**53  # whole numbers up to here survive a double
WHOLE_FLOAT = re.compile(r"-?[0-9]+\.0")


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
        table = _parquet(path, name) if path.suffix == ".parquet" else _csv(path, name, required)
    except (pa.ArrowException, OSError, UnicodeError, csv.Error) as error:
        raise CatalogueError(f"{name}: the file cannot be read: {_first_line(error)}") from error
    missing = [column for column in required if column not in table.frame.columns]
    if missing:
        there = ", ".join(map(str, table.frame.columns.drop(ROW)))
        raise CatalogueError(f"{path.name}: no column {', '.join(missing)}; the columns are {there}")
    return _with_ids(table, path, [column for column in ids if column in table.frame.columns])


def is_nothing(value: object) -> bool:
    """Whether a cell holds nothing: None, NaN, blanks, an empty list."""
    if isinstance(value, str):
        return not value.strip()
    if isinstance(value, list | tuple | np.ndarray):
        return len(value) == 0
    return value is None or value is pd.NA or value is pd.NaT or value != value


def _csv(path: Path, name: str, required: Sequence[str]) -> Table:
    notes: list[str] = []
    content, encoding = _decoded(path)
    if encoding:
        notes.append(f"{path.name} is read as {encoding}; UTF-8 is expected")
    head = _head(content)
    if not head:
        raise CatalogueError(f"{name}: {path.name} is empty; expected a header with {', '.join(required)}")
    delimiter = _delimiter(head, required)
    if delimiter != ",":
        shown = "tabs" if delimiter == "\t" else f"`{delimiter}`"
        notes.append(f"{path.name} is separated by {shown}")
    header = [column.strip() for column in next(csv.reader([head], delimiter=delimiter))]
    _require_names(path, header, notes)
    frame, wrong = _parse(content, header, delimiter)
    trailing = [row for row in wrong if row.cells == len(header) + 1 and row.text.rstrip("\r\n").endswith(delimiter)]
    if trailing and len(trailing) == len(wrong) and not len(frame):
        frame, wrong = _parse(content, [*header, ""], delimiter)
        frame = frame.drop(columns="")
        notes.append(f"{path.name}: each row ends with a separator that the header does not have; it is passed over")
    unusable = _wrong_rows(wrong, name, delimiter, len(header))
    frame = _numbered(frame, {row.row for row in unusable})
    frame, swallowed = _without_swallowed(frame, name, delimiter, len(header))
    blank = [column for column in header if column.startswith(_UNNAMED)]
    frame = frame.drop(columns=[column for column in blank if frame[column].map(is_nothing).all()])
    return Table(name, frame, len(frame) + len(unusable) + len(swallowed), (*unusable, *swallowed), tuple(notes))


@dataclass(frozen=True, slots=True)
class _WrongLength:
    number: int
    cells: int
    text: str


_UNNAMED = "column "


def _decoded(path: Path) -> tuple[bytes, str]:
    """The file as UTF-8, and the name of its encoding where it is another."""
    content = path.read_bytes()
    if content.startswith(b"\xef\xbb\xbf"):
        content = content[3:]
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return content.decode("utf-16").encode(), "UTF-16"
    for encoding, zeros in (("utf-16-le", content[1:200:2]), ("utf-16-be", content[:200:2])):
        if zeros.count(b"\0") > len(zeros) / 2:  # no mark, but every other byte of plain text is zero
            return content.decode(encoding).encode(), "UTF-16"
    try:
        content.decode()
    except UnicodeDecodeError:
        return content.decode("cp1252", errors="replace").encode(), "Windows-1252 (Latin-1)"
    return content, ""


def _head(content: bytes) -> str:
    """The first line."""
    return content[: content.find(b"\n") if b"\n" in content else len(content)].decode().strip("\r\n")


def _delimiter(head: str, required: Sequence[str]) -> str:
    """The one that finds the required columns in the header; a comma where none does."""
    for delimiter in DELIMITERS:
        names = [column.strip() for column in next(csv.reader([head], delimiter=delimiter))]
        if all(column in names for column in required):
            return delimiter
    return max(DELIMITERS, key=head.count) if not required or head.count(",") == 0 else ","


def _require_names(path: Path, header: list[str], notes: list[str]) -> None:
    """Each column has a name of its own; nameless ones get their number. Raises CatalogueError."""
    for place, column in enumerate(header):
        if not column:
            header[place] = f"{_UNNAMED}{place + 1}"
            notes.append(f"{path.name}: column {place + 1} has no name in the header")
    for column, count in Counter(header).items():
        if count > 1:
            places = " and ".join(str(place + 1) for place, other in enumerate(header) if other == column)
            raise CatalogueError(
                f"{path.name}: the header names {column!r} more than once (columns {places}); rename one"
            )
        if "\0" in column:
            raise CatalogueError(f"{path.name}: the name of a column holds a zero byte: {column!r}")


def _parse(content: bytes, header: list[str], delimiter: str) -> tuple[pd.DataFrame, list[_WrongLength]]:
    wrong: list[_WrongLength] = []

    def skip(row: pyarrow.csv.InvalidRow) -> str:
        # the first row that is parsed has the number 2: the header was skipped
        wrong.append(_WrongLength((row.number or 2) - 1, row.actual_columns, row.text or ""))
        return "skip"

    try:
        table = pyarrow.csv.read_csv(
            io.BytesIO(content),
            read_options=pyarrow.csv.ReadOptions(
                use_threads=False, column_names=header, skip_rows=1, block_size=BLOCK
            ),
            parse_options=pyarrow.csv.ParseOptions(
                delimiter=delimiter, newlines_in_values=True, invalid_row_handler=skip
            ),
            convert_options=pyarrow.csv.ConvertOptions(
                column_types=dict.fromkeys(header, pa.string()), strings_can_be_null=False
            ),
        )  # fmt: skip
    except pa.ArrowInvalid as error:
        if "Empty CSV" in str(error):
            return pd.DataFrame({column: pd.Series([], dtype=object) for column in header}), wrong
        if (row := _unclosed(content)) is not None:
            raise CatalogueError(
                f"row {row} has a quote that is not closed, so the rows after it cannot be told apart: "
                'close it, or write "" for a quote within a cell'
            ) from error
        raise
    return table.to_pandas().astype(object), wrong


def _unclosed(content: bytes) -> int | None:
    """The first data row with an odd number of quotes, or None."""
    for number, line in enumerate(content.split(b"\n")):
        if number and line.count(b'"') % 2:
            return number
    return None


def _compared(cells: int, expected: int) -> str:
    return f"{cells} found" + (": is a separator missing quotes around it?" if cells > expected else "")


def _numbered(frame: pd.DataFrame, wrong: set[int]) -> pd.DataFrame:
    numbers = np.arange(1, len(frame) + len(wrong) + 1)
    return frame.assign(**{ROW: numbers[~np.isin(numbers, list(wrong))] if wrong else numbers})


def _wrong_rows(wrong: Sequence[_WrongLength], name: str, delimiter: str, columns: int) -> list[Unusable]:
    """Rows of another length than the header, each with the rows that its quote takes in."""
    found: list[Unusable] = []
    inside = 0
    for row in wrong:
        number = row.number + inside
        if taken := _taken_in(row.text, delimiter, columns):
            found += _swallowing(name, number, row.text, taken)
            inside += len(taken)
        else:
            found.append(
                Unusable(name, number, f"{columns} cells expected, {_compared(row.cells, columns)}", row.text[:80])
            )
    return found


def _without_swallowed(
    frame: pd.DataFrame, name: str, delimiter: str, columns: int
) -> tuple[pd.DataFrame, list[Unusable]]:
    """The frame without rows in which a quote that is not closed has taken in the rows up to the next quote."""
    found: list[Unusable] = []
    for column in frame.columns.drop(ROW):
        for place in frame.index[frame[column].str.contains("\n", regex=False, na=False)]:
            text = str(frame.at[place, column])
            if frame.at[place, ROW] < 0 or not (taken := _taken_in(text, delimiter, columns)):
                continue
            found += _swallowing(name, int(frame.at[place, ROW]), text, taken)
            frame.loc[place:, ROW] += len(taken)  # what follows stands that much further down
            frame.at[place, ROW] = -1
    return frame[frame[ROW] >= 0].reset_index(drop=True), found


def _taken_in(text: str, delimiter: str, columns: int) -> list[str]:
    """The lines within a cell that look like rows; none where the cell just has several lines."""
    lines = text.strip("\r\n").splitlines()[1:]
    whole = [line for line in lines[:-1] if line.count(delimiter) == columns - 1]
    looks_so = columns > 1 and bool(lines) and len(whole) == len(lines) - 1 and lines[-1].count(delimiter) >= 1
    return lines if looks_so else []


def _swallowing(name: str, number: int, text: str, taken: Sequence[str]) -> list[Unusable]:
    reason = 'a quote that is not closed takes in the rows after it: close it, or write "" for a quote'
    said = f"rows {number + 1} to {number + len(taken)} are inside it: {text.splitlines()[0]}"
    inner = [Unusable(name, number + at, reason, line[:80]) for at, line in enumerate(taken, start=1)]
    return [Unusable(name, number, reason, said[:120]), *inner]


def _parquet(path: Path, name: str) -> Table:
    table = pyarrow.parquet.read_table(path)
    notes = []
    names = [str(column).strip() for column in table.column_names]
    plain = [column for column in names if not re.fullmatch(r"__index_level_[0-9]+__", column)]
    if len(plain) < len(names):
        notes.append(f"{path.name}: pandas' index without a name is passed over")
    _require_names(path, names, notes)
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
