"""Read a catalogue folder, and say which of its rows cannot be used, and why."""

import time
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from service.errors import CatalogueError
from service.recommender.catalogue.items import GROUP
from service.recommender.factors import DISMISS
from training.data.catalogue import KEY, OF_INTERACTIONS, OWN, USER, Catalogue, StoreMark
from training.data.columns import BOOLEAN, CATEGORY, IGNORED, NUMBER, TAGS, Column, as_names, split_tags, typed
from training.data.events import read_events, read_values
from training.data.rows import ROW, Table, Unusable, is_nothing
from training.data.tables import read_table
from training.data.times import read_times
from training.progress import say


def read(path: Path, *, now: float | None = None, remembered: Path | None = None) -> Catalogue:
    """Read a catalogue folder. Raises CatalogueError where a table is missing, unreadable, lacks a column, or has no
    usable row.

    now: seconds; later interactions are unusable (default: the clock); remembered: a file of the digests of pictures,
    so that not every picture is read again."""
    catalogue = replace(inspect(path, now=now), remembered=remembered)
    catalogue.require_usable(1.0)
    return catalogue


def inspect(path: Path, *, now: float | None = None) -> Catalogue:
    """The same where nothing is usable: what is there, and every reason against it. Raises CatalogueError where a table
    is missing, unreadable or lacks a column."""
    require_folder(path)
    table = read_table(path, "items", required=("item_id",), ids=("item_id",))
    if table is None:
        raise CatalogueError(f"{path} holds neither items.parquet nor items.csv: see docs/catalogue.md")
    reading = _Reading(path, time.time() if now is None else now)
    items, kinds = reading.items(table)
    interactions = users = None
    user_kinds: dict[str, str] = {}
    store = StoreMark.read(path)
    who = USER if store is None else KEY  # whoever reads an export learns no id
    if table := read_table(path, "interactions", required=(who, "item_id", "timestamp"), ids=(who, "item_id")):
        interactions = reading.interactions(_by_user(table, who), items)
    if (table := read_table(path, "users", required=(who,), ids=(who,))) is not None:
        users, user_kinds = reading.users(_by_user(table, who))
    return Catalogue(
        path,
        items,
        kinds,
        interactions,
        users,
        tuple(reading.unusable),
        reading.rows,
        user_kinds,
        tuple(reading.columns),
        tuple(reading.notes),
        store=store,
    )


def say_what_was_read(catalogue: Catalogue) -> None:
    """What `vitrine check` would say of the catalogue, without the rows."""
    for (table, reason), count in catalogue.unusable_by_reason().items():
        say(f"{table}: {count} rows left out: {reason}")
    for note in catalogue.notes:
        say(note)
    if groups := catalogue.near_duplicates():
        say(f"items: {sum(map(len, groups))} have nearly the same picture as another, such as {groups[0][:3]}")
    for column in catalogue.columns:
        if column.why:
            say(f"{column.table}: {column.name} is {column.kind}: {column.why}")


class _Reading:
    """What is found out while a folder is read."""

    def __init__(self, path: Path, now: float) -> None:
        self.path, self.now = path, now
        self.unusable: list[Unusable] = []
        self.columns: list[Column] = []
        self.notes: list[str] = []
        self.rows: dict[str, int] = {}

    def items(self, table: Table) -> tuple[pd.DataFrame, dict[str, str]]:
        """Items with their pictures and attributes, and the kinds of the attributes."""
        self._begin(table)
        items = self._usable(table.frame, "items", {"missing item_id": _empty(table.frame["item_id"])})
        items = self._without_repeated(items, "items", "item_id")
        for column in ("title", "category"):
            if column not in items.columns:
                items[column] = None
        items["title"] = ["" if is_nothing(title) else str(title).strip() for title in items["title"]]
        pictures = self._pictures(items)
        items["images"] = pd.Series(pictures, dtype=object, index=items.index)
        items["image"] = pd.Series([found[0] if found else None for found in pictures], dtype=object, index=items.index)
        kinds = {}
        attributes = [column for column in items.columns if column not in (*OWN, ROW)]
        if (category := self._column(items, "items", "category")).kind in (NUMBER, BOOLEAN):
            items["category"] = as_names(self._raw(table, items, "category"))
            category = Column("items", "category", CATEGORY)
        self.columns.append(category)
        kinds["category"] = TAGS if category.kind == TAGS else CATEGORY
        for name in attributes:
            found = self._column(items, "items", name)
            if name == GROUP and found.kind != IGNORED:
                items[GROUP] = as_names(self._raw(table, items, GROUP))
                sizes = items[GROUP].value_counts()
                found = Column("items", GROUP, CATEGORY, f"{len(sizes)} products; an answer shows one variant of each")
            self.columns.append(found)
            if found.kind != IGNORED:
                kinds[name] = found.kind
        kept = [name for name in attributes if name in kinds]
        return items[["item_id", "image", "images", "title", "category", *kept, ROW]], kinds

    def interactions(self, table: Table, items: pd.DataFrame) -> pd.DataFrame:
        """Who did what with which item, and when."""
        self._begin(table)
        frame = table.frame
        if "event" not in frame and "value" not in frame:
            there = ", ".join(map(str, frame.columns.drop(ROW)))
            raise CatalogueError(f"interactions: a column event or value is needed; there are {there}")
        self.columns += [
            Column("interactions", str(name), IGNORED, f"only {', '.join(OF_INTERACTIONS)} are read of interactions")
            for name in frame.columns if name not in (*OF_INTERACTIONS, ROW)
        ]  # fmt: skip
        known = read_events(frame["event"]) if "event" in frame else read_events(pd.Series([""] * len(frame)))
        if known.silent.any():
            frame = self._without_silent(frame, known.silent)
            known = read_events(frame["event"])
        item = pd.Series(np.arange(len(items)), index=items["item_id"]).reindex(frame["item_id"]).to_numpy(float)
        times = read_times(frame["timestamp"], now=self.now)
        none = np.zeros(len(frame), dtype=bool)
        empty_value = _empty(frame["value"]) if "value" in frame else ~none
        value = pd.to_numeric(frame["value"], errors="coerce").to_numpy(float) if "value" in frame else None
        value = np.full(len(frame), np.nan) if value is None else np.where(np.isfinite(value), value, np.nan)
        unknown = np.where(known.unknown, _named(frame), "")
        reasons = {
            "missing user_id": _empty(frame["user_id"]),
            "missing item_id": _empty(frame["item_id"]),
            "unknown item_id": np.isnan(item),
            **{reason: times.reasons == reason for reason in dict.fromkeys(times.reasons) if reason},
            "value is not a number": ~empty_value & np.isnan(value),
            "neither event nor value": known.missing & empty_value,
            "a rating without a value": known.rated & empty_value,
            **{f"unknown event {name!r}": unknown == name for name in dict.fromkeys(unknown) if name},
        }
        frame = frame.assign(**{"\0item": item, "\0at": times.seconds, "\0value": value, "\0event": known.names})
        frame = self._usable(frame, "interactions", reasons)
        return self._liking(frame).sort_values("timestamp", kind="stable").reset_index(drop=True)

    def users(self, table: Table) -> tuple[pd.DataFrame, dict[str, str]]:
        """Profile columns by user, and their kinds."""
        self._begin(table)
        users = self._usable(table.frame, "users", {"missing user_id": _empty(table.frame["user_id"])})
        users = self._without_repeated(users, "users", "user_id").drop(columns=ROW)
        kinds = {}
        for name in users.columns.drop("user_id"):
            self.columns.append(found := self._column(users, "users", name))
            if found.kind != IGNORED:
                kinds[name] = found.kind
        return users[["user_id", *kinds]], kinds

    def _begin(self, table: Table) -> None:
        self.rows[table.name] = table.rows
        self.unusable += table.unusable
        self.notes += table.notes

    def _without_silent(self, frame: pd.DataFrame, silent: np.ndarray) -> pd.DataFrame:
        """Without events that say nothing of an item; they are no fault of the log."""
        counts = Counter(frame["event"][silent].astype(str).str.strip()).most_common()
        said = ", ".join(f"{name} ({count})" for name, count in counts)
        self.notes.append(f"interactions: events that say nothing of liking are left out: {said}")
        return frame[~silent].reset_index(drop=True)

    def _liking(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Events by our names, and the weight that values give them."""
        events = frame["\0event"].to_numpy(dtype=object)
        values = read_values(frame["\0value"].to_numpy(float), events)
        if values.note:
            self.notes.append(f"interactions: {values.note}")
        return pd.DataFrame(
            {
                "user_id": frame["user_id"].astype(str),
                "item": frame["\0item"].astype(np.int32),
                "event": np.where(values.dismissed, DISMISS, events).astype(str).astype(object),
                "weight": values.weights,
                "timestamp": frame["\0at"].astype(np.int64),
            }
        )

    def _column(self, frame: pd.DataFrame, table: str, name: str) -> Column:
        """Find out what a column holds, and turn it into that."""
        rows = frame[ROW].tolist() if ROW in frame else list(range(1, len(frame) + 1))
        frame[name], found = typed(table, frame[name].rename(name), rows)
        return found

    def _raw(self, table: Table, items: pd.DataFrame, name: str) -> pd.Series:
        """A column as it stands in the file: of names, also when they look like numbers."""
        return table.frame.set_index(ROW)[name].reindex(items[ROW]).reset_index(drop=True)

    def _usable(self, frame: pd.DataFrame, name: str, reasons: dict[str, np.ndarray]) -> pd.DataFrame:
        """Drop the rows that any mask names, each counted under the first reason that holds."""
        bad = np.zeros(len(frame), dtype=bool)
        shown = [column for column in frame.columns if not str(column).startswith("\0")]
        for reason, mask in reasons.items():
            for position in np.flatnonzero(mask & ~bad):
                cells = ",".join("" if is_nothing(cell) else str(cell) for cell in frame.iloc[position][shown])
                self.unusable.append(Unusable(name, int(frame[ROW].iloc[position]), reason, cells[:80]))
            bad |= mask
        return frame[~bad].reset_index(drop=True)

    def _without_repeated(self, frame: pd.DataFrame, name: str, column: str) -> pd.DataFrame:
        repeated = frame[column].duplicated().to_numpy()
        return self._usable(frame, name, {f"{column} already taken by an earlier row": repeated})

    def _pictures(self, items: pd.DataFrame) -> list[tuple[str, ...]]:
        """Relative paths of the pictures of each item that are there."""
        columns = [column for column in ("image", "images") if column in items.columns]
        found: list[tuple[str, ...]] = []
        for row, *cells in zip(items[ROW], *(items[column] for column in columns), strict=True):
            names = dict.fromkeys(name for cell in cells for name in picture_names(self.path, cell))
            places = {name: find_picture(self.path, name) for name in names}
            for name, (_, reason) in places.items():
                if reason:
                    self.unusable.append(Unusable("items", int(row), reason, name[:80]))
            found.append(tuple(dict.fromkeys(there for there, reason in places.values() if not reason)))
        if several := sum(len(pictures) > 1 for pictures in found):
            self.notes.append(
                f"items: {several} have several pictures, {sum(map(len, found))} in all; each is searched, the first "
                "is learned from and shown"
            )
        return found


def picture_names(home: Path, cell: object) -> Iterator[str]:
    """The names in a cell `a|b`, or `a;b` where that is no file itself."""
    for part in split_tags(cell):
        several = ";" in part and find_picture(home, part)[1]
        yield from (name.strip() for name in part.split(";") if name.strip()) if several else (part,)


def find_picture(home: Path, name: str) -> tuple[str, str]:
    """The relative path of a picture, and "", or why it is none. Names are looked for as they are and in both forms of
    Unicode (macOS stores letters and accents apart); links are followed, whoever made the folder knows where to."""
    if "://" in name[:12]:
        return name, "picture is a URL, which is not fetched"
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or (len(name) > 1 and name[1] == ":"):
        return name, "picture outside the catalogue folder"
    for form in (str(path), unicodedata.normalize("NFC", str(path)), unicodedata.normalize("NFD", str(path))):
        try:
            if (home / form).is_file():
                return form, ""
        except (OSError, ValueError):  # too long for a name, or with a zero byte
            break
    return name, "picture not found"


def _by_user(table: Table, who: str) -> Table:
    """The table with its users in the column USER, whichever has them."""
    others = table.frame.drop(columns=USER, errors="ignore") if who == KEY else table.frame
    return replace(table, frame=others.rename(columns={who: USER}))


def _empty(column: pd.Series) -> np.ndarray:
    return np.array([is_nothing(value) for value in column], dtype=bool)


def _named(frame: pd.DataFrame) -> np.ndarray:
    """(n,) what stands in `event`, short enough for a reason."""
    if "event" not in frame:
        return np.full(len(frame), "")
    return frame["event"].fillna("").astype(str).str.strip().str.slice(0, 40).to_numpy(dtype=object)


def require_folder(path: Path) -> None:
    """Raises CatalogueError where it is none."""
    if not path.is_dir():
        raise CatalogueError(f"{path} is not a folder; expected a catalogue folder with items.csv or items.parquet")
