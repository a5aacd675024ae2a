"""Read a catalogue folder, and say which of its rows cannot be used, and why.

items.parquet|csv         item_id, image, title, category, then any attribute columns
interactions.parquet|csv  user_id, item_id, event or value, timestamp          (optional)
users.parquet|csv         user_id, then any profile columns                    (optional)
images/
"""

import hashlib
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from service.errors import CatalogueError

REQUIRED = {"items": ["item_id"], "interactions": ["user_id", "item_id", "timestamp"], "users": ["user_id"]}
TEXT_COLUMNS = ("item_id", "image", "title")
MAX_UNUSABLE = 0.05
YEAR_5138_SECONDS = 1e11  # a larger number of seconds is a number of milliseconds


@dataclass(frozen=True, slots=True)
class Unusable:
    """One row that cannot be used. `row` counts data rows from 1, as a person would."""

    table: str
    row: int
    reason: str
    value: str


@dataclass(frozen=True, slots=True)
class Catalogue:
    """What can be used of a catalogue folder.

    items: one row an item, in the order of the file; ids are unique strings; an item without a picture has image None.
    interactions: user_id, item (row of `items`), event, value, timestamp (seconds), in the order of time.
    users: profile columns by unique user_id, or None.
    kinds: attribute column of `items` -> number | boolean | category | tags; user_kinds: profile column of `users`.
    """

    path: Path
    items: pd.DataFrame
    kinds: dict[str, str]
    interactions: pd.DataFrame | None = None
    users: pd.DataFrame | None = None
    unusable: tuple[Unusable, ...] = ()
    rows: dict[str, int] = field(default_factory=dict)
    user_kinds: dict[str, str] = field(default_factory=dict)

    def unusable_by_reason(self) -> dict[tuple[str, str], int]:
        """(table, reason) -> how many rows, most frequent first."""
        return dict(Counter((u.table, u.reason) for u in self.unusable).most_common())

    def require_usable(self, max_share: float = MAX_UNUSABLE) -> None:
        """Stop where too large a share of a table's rows cannot be used. Raises CatalogueError."""
        for table, rows in self.rows.items():
            bad = {u.row: u.reason for u in self.unusable if u.table == table}
            if rows and len(bad) / rows > max_share:
                reason, count = Counter(bad.values()).most_common(1)[0]
                raise CatalogueError(
                    f"{len(bad)} of {rows} rows of {table} cannot be used ({100 * len(bad) / rows:.1f} %, at most "
                    f"{100 * max_share:g} % allowed), {count} of them: {reason}. See them with `vitrine check "
                    f"{self.path}`; raise the limit with --max-unusable"
                )

    def with_unreadable(self, unreadable: dict[int, str]) -> "Catalogue":
        """The catalogue after its pictures were decoded: those items lose their picture, with the reason kept.

        unreadable: row of items -> the decoder's message."""
        if not unreadable:
            return self
        items = self.items.copy()
        found = [
            Unusable("items", int(items.at[row, "row"]), "unreadable picture", f"{items.at[row, 'image']}: {message}")
            for row, message in unreadable.items()
        ]
        items.loc[list(unreadable), "image"] = None
        return replace(self, items=items, unusable=self.unusable + tuple(found))

    def pictured(self) -> np.ndarray:
        """Rows of the items that have a picture."""
        return np.flatnonzero(self.items["image"].notna().to_numpy())

    def picture(self, row: int) -> bytes:
        """The bytes of one item's picture."""
        return (self.path / self.items.at[row, "image"]).read_bytes()

    def primary_category(self) -> list[str | None]:
        """One category an item: the first of several."""
        return [(c[0] if c else None) if isinstance(c, list) else c for c in self.items["category"]]

    def fingerprint(self) -> str:
        """sha256 over every usable value and every picture's bytes."""
        digest = hashlib.sha256()
        for table in (self.items, self.interactions, self.users):
            text = "" if table is None else table.to_csv(index=False)
            digest.update(text.encode())
        for row in self.pictured():
            digest.update(hashlib.sha256(self.picture(row)).digest())
        return digest.hexdigest()


def require_folder(path: Path) -> None:
    """Raises CatalogueError where it is none."""
    if not path.is_dir():
        raise CatalogueError(f"{path} is not a folder; expected a catalogue folder with items.csv or items.parquet")


def read(path: Path, *, now: float | None = None) -> Catalogue:
    """Read a catalogue folder. Raises CatalogueError where a table is missing, unreadable or lacks a column.

    now: seconds; later interactions are unusable (default: the clock)."""
    require_folder(path)
    found: list[Unusable] = []
    table = _table(path, "items", found)
    if table is None:
        raise CatalogueError(f"{path} holds neither items.parquet nor items.csv; what a catalogue is: README.md")
    items, kinds = _items(path, table, found)
    rows = {"items": len(table)}
    interactions = users = None
    user_kinds: dict[str, str] = {}
    if (table := _table(path, "interactions", found)) is not None:
        rows["interactions"] = len(table)
        interactions = _interactions(table, items, found, now=time.time() if now is None else now)
    if (table := _table(path, "users", found)) is not None:
        rows["users"] = len(table)
        users = _usable(table, "users", found, {"missing user_id": _empty(table["user_id"])})
        users = _drop_duplicates(users, "users", "user_id", found)
        users = users.drop(columns="row")
        for column in users.columns[1:]:
            users[column], user_kinds[column] = _typed(users[column])
    return Catalogue(path, items, kinds, interactions, users, tuple(found), rows, user_kinds)


def _table(path: Path, name: str, found: list[Unusable]) -> pd.DataFrame | None:
    parquet, csv = path / f"{name}.parquet", path / f"{name}.csv"
    if parquet.exists() and csv.exists():
        raise CatalogueError(f"{path} holds both {parquet.name} and {csv.name}; keep the one that is meant")
    try:
        if parquet.exists():
            table = pyarrow.parquet.read_table(parquet).to_pandas()
        elif csv.exists():
            table = _csv(csv, name, found)
        else:
            return None
    except (pa.ArrowInvalid, OSError, UnicodeDecodeError) as error:
        raise CatalogueError(f"{name}: the file cannot be read: {error}") from error
    missing = [column for column in REQUIRED[name] if column not in table.columns]
    if missing:
        raise CatalogueError(f"{name}: no column {', '.join(missing)}; the columns are {', '.join(table.columns)}")
    for column in ("item_id", "user_id"):
        if column in table.columns:
            table[column] = [None if _is_nothing(v) else str(v).strip() for v in table[column]]
    table["row"] = np.arange(1, len(table) + 1)
    return table


def _csv(path: Path, name: str, found: list[Unusable]) -> pd.DataFrame:
    """Every cell as text: ids stay what they look like. Rows of the wrong length are counted, not fatal."""

    def skip(row: pyarrow.csv.InvalidRow) -> str:
        found.append(Unusable(name, row.number or 0, f"{row.expected_columns} cells expected", (row.text or "")[:80]))
        return "skip"

    with path.open(encoding="utf-8-sig") as file:
        header = next(pd.read_csv(file, chunksize=1, dtype=str)).columns if path.stat().st_size else []
    table = pyarrow.csv.read_csv(
        path,
        read_options=pyarrow.csv.ReadOptions(use_threads=False),
        parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True, invalid_row_handler=skip),
        convert_options=pyarrow.csv.ConvertOptions(column_types=dict.fromkeys(header, pa.string())),
    )
    return table.to_pandas()


def _is_nothing(value: object) -> bool:
    return value is None or value != value or (isinstance(value, str) and not value.strip())


def _empty(column: pd.Series) -> np.ndarray:
    return np.array([_is_nothing(value) for value in column], dtype=bool)


def _usable(table: pd.DataFrame, name: str, found: list[Unusable], reasons: dict[str, np.ndarray]) -> pd.DataFrame:
    """Drop the rows that any mask names, each counted under the first reason that holds."""
    bad = np.zeros(len(table), dtype=bool)
    for reason, mask in reasons.items():
        for position in np.flatnonzero(mask & ~bad):
            row = table.iloc[position]
            cells = ",".join("" if _is_nothing(v) else str(v) for v in row.drop("row"))
            found.append(Unusable(name, int(row["row"]), reason, cells[:80]))
        bad |= mask
    return table[~bad].reset_index(drop=True)


def _drop_duplicates(table: pd.DataFrame, name: str, column: str, found: list[Unusable]) -> pd.DataFrame:
    repeated = table[column].duplicated().to_numpy()
    return _usable(table, name, found, {f"{column} already taken by an earlier row": repeated})


def _items(path: Path, table: pd.DataFrame, found: list[Unusable]) -> tuple[pd.DataFrame, dict[str, str]]:
    items = _usable(table, "items", found, {"missing item_id": _empty(table["item_id"])})
    items = _drop_duplicates(items, "items", "item_id", found)
    if items.empty:
        raise CatalogueError("items: no usable row; at least one row with an item_id is needed")
    for column in ("image", "title", "category"):
        if column not in items.columns:
            items[column] = None
    items["title"] = ["" if _is_nothing(t) else str(t).strip() for t in items["title"]]
    items["image"] = _existing_pictures(path, items, found)
    attributes = [c for c in items.columns if c not in (*TEXT_COLUMNS, "category", "row")]
    kinds = {}
    for column in ("category", *attributes):
        items[column], kinds[column] = _typed(items[column])
    if kinds["category"] in ("number", "boolean"):  # categories are names, also when they look like numbers
        items["category"] = _series(list(items["category"]), lambda c: None if _is_nothing(c) else f"{float(c):g}")
        kinds["category"] = "category"
    return items[["item_id", "image", "title", "category", *attributes, "row"]], kinds


def _existing_pictures(path: Path, items: pd.DataFrame, found: list[Unusable]) -> list[str | None]:
    """Relative paths of pictures that are there, inside the folder."""
    home = path.resolve()
    pictures: list[str | None] = []
    for row, cell in zip(items["row"], items["image"], strict=True):
        if _is_nothing(cell):
            pictures.append(None)
            continue
        place = (home / str(cell)).resolve()
        reason = None
        if not place.is_relative_to(home):
            reason = "picture outside the catalogue folder"
        elif not place.is_file():
            reason = "picture not found"
        if reason:
            found.append(Unusable("items", int(row), reason, str(cell)))
        pictures.append(None if reason else str(cell))
    return pictures


def _typed(column: pd.Series) -> tuple[pd.Series, str]:
    """Find out what a column holds: tags (`a|b|c` or lists), boolean, number, else category."""
    values = [None if _is_list_nothing(v) else v for v in column]
    present = [v for v in values if v is not None]
    if any(isinstance(v, list | tuple | np.ndarray) or (isinstance(v, str) and "|" in v) for v in present):
        return pd.Series([_tags(v) for v in values], dtype=object), "tags"
    texts = {str(v).strip().lower() for v in present}
    if present and texts <= {"true", "false"}:
        return _series(values, lambda v: str(v).strip().lower() == "true"), "boolean"
    numbers = pd.to_numeric(pd.Series(present, dtype=object), errors="coerce")
    if present and np.isfinite(numbers.astype(float)).all():
        return pd.to_numeric(pd.Series(values, dtype=object)).astype(float), "number"
    return _series(values, lambda v: str(v).strip()), "category"


def _series(values: list, convert: Callable[[Any], object]) -> pd.Series:
    return pd.Series([None if v is None else convert(v) for v in values], dtype=object)


def _is_list_nothing(value: object) -> bool:
    if isinstance(value, list | tuple | np.ndarray):
        return len(value) == 0
    return _is_nothing(value)


def _tags(value: object) -> list[str]:
    if value is None:
        return []
    parts = value.split("|") if isinstance(value, str) else list(value)  # type: ignore[call-overload]
    return [str(part).strip() for part in parts if not _is_nothing(part)]


def _interactions(table: pd.DataFrame, items: pd.DataFrame, found: list[Unusable], *, now: float) -> pd.DataFrame:
    if "event" not in table.columns and "value" not in table.columns:
        raise CatalogueError(f"interactions: a column event or value is needed; there are {', '.join(table.columns)}")
    rows = pd.Series(np.arange(len(items)), index=items["item_id"])
    item = rows.reindex(table["item_id"]).to_numpy()
    seconds = seconds_of(table["timestamp"])
    value = pd.to_numeric(table["value"], errors="coerce").to_numpy(float) if "value" in table else np.ones(len(table))
    bare = "event" in table  # an event counts also where its value is empty
    value = np.where(np.isnan(value) & _empty(table["value"]), 1.0, value) if bare and "value" in table else value
    table = table.assign(item=item, timestamp=seconds, value=value)
    reasons = {
        "missing user_id": _empty(table["user_id"]),
        "missing item_id": _empty(table["item_id"]),
        "unknown item_id": np.isnan(item),
        "impossible timestamp": ~np.isfinite(seconds) | (seconds < 0),
        "timestamp in the future": seconds > now + 86_400,
        "value is not a number": ~np.isfinite(value),
    }
    table = _usable(table, "interactions", found, reasons)
    if table.empty:
        raise CatalogueError("interactions: no usable row; run `vitrine check` to see why, or remove the file")
    event = table["event"].fillna("").astype(str) if "event" in table else pd.Series([""] * len(table))
    usable = pd.DataFrame(
        {
            "user_id": table["user_id"].astype(str),
            "item": table["item"].astype(np.int32),
            "event": event,
            "value": table["value"].astype(np.float32),
            "timestamp": table["timestamp"].astype(np.int64),
        }
    )
    return usable.sort_values("timestamp", kind="stable").reset_index(drop=True)


def seconds_of(column: pd.Series) -> np.ndarray:
    """Seconds since 1970 from numbers (seconds or milliseconds) or dates; NaN where neither."""
    if pd.api.types.is_datetime64_any_dtype(column):
        return pd.to_datetime(column, utc=True).astype("datetime64[s, UTC]").astype("int64").to_numpy(float)
    seconds = pd.to_numeric(column, errors="coerce").to_numpy(float)
    seconds = np.where(seconds > YEAR_5138_SECONDS, seconds / 1000, seconds)
    dates = np.isnan(seconds) & ~_empty(column)
    if dates.any():
        parsed = pd.to_datetime(column[dates], errors="coerce", utc=True, format="ISO8601")
        since = (parsed - pd.Timestamp(0, tz="UTC")).dt.total_seconds()
        seconds[dates] = since.to_numpy(float)
    return seconds
