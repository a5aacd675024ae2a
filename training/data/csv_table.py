"""CSV as people and programs write it -> rows of text."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from service.errors import CatalogueError
from training.data.rows import ROW, UNNAMED, Table, Unusable, is_nothing, require_names

DELIMITERS = ",;\t|"
BLOCK = 16 * 1024 * 1024  # bytes that are parsed at once; a cell may not be longer


def read_csv(path: Path, name: str, required: Sequence[str]) -> Table:
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
    require_names(path, header, notes)
    frame, wrong = _parse(content, header, delimiter)
    trailing = [row for row in wrong if row.cells == len(header) + 1 and row.text.rstrip("\r\n").endswith(delimiter)]
    if trailing and len(trailing) == len(wrong) and not len(frame):
        frame, wrong = _parse(content, [*header, ""], delimiter)
        frame = frame.drop(columns="")
        notes.append(f"{path.name}: each row ends with a separator that the header does not have; it is passed over")
    unusable = _wrong_rows(wrong, name, delimiter, len(header))
    frame = _numbered(frame, {row.row for row in unusable})
    frame, swallowed = _without_swallowed(frame, name, delimiter, len(header))
    blank = [column for column in header if column.startswith(UNNAMED)]
    frame = frame.drop(columns=[column for column in blank if frame[column].map(is_nothing).all()])
    return Table(name, frame, len(frame) + len(unusable) + len(swallowed), (*unusable, *swallowed), tuple(notes))


@dataclass(frozen=True, slots=True)
class _WrongLength:
    number: int
    cells: int
    text: str


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


def _parse(content: bytes, header: list[str], delimiter: str) -> tuple[pd.DataFrame, list[_WrongLength]]:
    wrong: list[_WrongLength] = []

    def skip(row: pyarrow.csv.InvalidRow) -> str:
        # the first row that is parsed has the number 2: the header was skipped
        wrong.append(_WrongLength((row.number or 2) - 1, row.actual_columns, row.text or ""))
        return "skip"

    try:
        table = pyarrow.csv.read_csv(
            io.BytesIO(content),
            read_options=pyarrow.csv.ReadOptions(use_threads=False, column_names=header, skip_rows=1, block_size=BLOCK),
            parse_options=pyarrow.csv.ParseOptions(
                delimiter=delimiter, newlines_in_values=True, invalid_row_handler=skip
            ),
            convert_options=pyarrow.csv.ConvertOptions(
                column_types=dict.fromkeys(header, pa.string()), strings_can_be_null=False
            ),
        )
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
