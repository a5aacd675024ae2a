"""Who is answered: every user of a release, or those that a file names."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from service.errors import VitrineError, shown
from service.recommender.query import MAX_ID
from service.recommender.release import Release

USER_ID, USER_KEY = "user_id", "user_key"


@dataclass(frozen=True, slots=True)
class Users:
    """Each user once. column: `user_id` or `user_key`, which the names are; repeated: rows of a file whose user came
    before; unusable: numbers of its rows, from 1 on, that hold no id."""

    column: str
    names: Sequence[str]
    repeated: int = 0
    unusable: Sequence[int] = ()


def users_of(release: Release) -> Users:
    """Every user of a release, who are known by their keyed hashes alone, in its order. Raises VitrineError."""
    if release.ranker is None:
        raise VitrineError(
            f"release {release.number} was made without interactions and knows no users: name users by --users FILE"
        )
    return Users(USER_KEY, release.ranker.user_keys)


def read_users(path: Path) -> Users:
    """The users of a file, CSV or Parquet with a column `user_id`, in its order. Raises VitrineError."""
    if not path.is_file():
        raise VitrineError(f"--users {path}: no such file")
    try:
        column = _parquet(path) if path.suffix == ".parquet" else _csv(path)
        texts = pc.utf8_trim_whitespace(column.cast(pa.string())).to_pylist()
    except (pa.ArrowException, OSError) as error:
        reason = str(error).strip().splitlines()[0][:300]
        raise VitrineError(
            f"--users {path.name} cannot be read ({reason}); expected CSV in UTF-8 with commas, or Parquet"
        ) from error
    unusable = [row for row, text in enumerate(texts, start=1) if not text or len(text) > MAX_ID]
    names = list(dict.fromkeys(text for text in texts if text and len(text) <= MAX_ID))
    if not names:
        raise VitrineError(f"--users {path.name} names no user: none of its {len(texts)} rows has a user_id")
    return Users(USER_ID, names, len(texts) - len(unusable) - len(names), unusable)


def _parquet(path: Path) -> pa.ChunkedArray:
    file = pq.ParquetFile(path)
    if USER_ID not in file.schema_arrow.names:
        raise VitrineError(f"--users {path.name}: no column user_id; there are {', '.join(file.schema_arrow.names)}")
    column = file.read(columns=[USER_ID])[USER_ID]
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_integer(kind)):
        raise VitrineError(f"--users {path.name}: user_id is {column.type}; ids are text, or whole numbers")
    return column


def _csv(path: Path) -> pa.ChunkedArray:
    """Ids stay the text that they are: `007` is not 7."""
    converted = pyarrow.csv.ConvertOptions(include_columns=[USER_ID], column_types={USER_ID: pa.string()})
    parsed = pyarrow.csv.ParseOptions(newlines_in_values=True)  # in other columns
    try:
        return pyarrow.csv.read_csv(path, parse_options=parsed, convert_options=converted)[USER_ID]
    except KeyError as error:
        with path.open(errors="replace") as file:
            head = file.readline().strip()
        raise VitrineError(f"--users {path.name}: no column user_id in its first line, {shown(head)}") from error
