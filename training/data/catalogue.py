"""Read a catalogue folder, and say which of its rows cannot be used, and why.

items.parquet|csv         item_id, image (or images: several, `a|b`), title, category, then any attribute columns
interactions.parquet|csv  user_id, item_id, event or value, timestamp          (optional)
users.parquet|csv         user_id, then any profile columns                    (optional)
images/
store.json                of which store, and up to which change               (of one that was exported)

An exported folder knows users by their keys alone: it has `user_key` in place of `user_id`.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd

from service.errors import CatalogueError
from service.files import write_text
from service.recommender.user_keys import key_check
from training.data.columns import Column
from training.data.rows import ROW, Unusable
from training.picture_digests import digest_all

OWN = ("item_id", "image", "images", "title", "category")
USER, KEY = "user_id", "user_key"
OF_INTERACTIONS = (USER, "item_id", "event", "value", "timestamp")
MAX_UNUSABLE = 0.05
STORE, STORE_FORMAT = "store.json", 1


@dataclass(frozen=True, slots=True)
class StoreMark:
    """What a folder holds of a store. store: its id; sequence: the number up to which it is all there;
    user_key_check: of the key that user ids were hashed with."""

    store: str
    sequence: int
    user_key_check: str

    @classmethod
    def read(cls, folder: Path) -> "StoreMark | None":
        """None where the folder was not exported. Raises CatalogueError."""
        try:
            values = json.loads((folder / STORE).read_text())
            if values["format"] != STORE_FORMAT:
                raise CatalogueError(f"{folder / STORE} has format {values['format']}; expected {STORE_FORMAT}")
            return cls(str(values["store"]), int(values["sequence"]), str(values["user_key_check"]))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CatalogueError(f"{folder / STORE} cannot be read ({error!r}): export the store again") from error

    def write(self, folder: Path) -> None:
        """Write store.json."""
        values = {"format": STORE_FORMAT, **asdict(self)}
        write_text(folder / STORE, json.dumps(values, indent=1) + "\n")


@dataclass(frozen=True, slots=True)
class Catalogue:
    """What can be used of a catalogue folder.

    items: one row an item, in the order of the file; ids are unique strings; image is the first of `images`, None
    where an item has none.
    interactions: user_id (a key where `keyed`), item (row of `items`), event ("" where a value alone says it), weight
    (float32, by which the event's confidence counts), timestamp (seconds), in the order of time.
    users: profile columns by unique user_id, or None.
    kinds: attribute column of `items` -> number | boolean | category | tags; user_kinds: profile column of `users`.
    columns: what became of each column of each file; notes: how files were read, where that had to be found out.
    same: (items,) int32, items with nearly the same picture have the same number, 0 has no other; None before the
    pictures were decoded.
    store: what it holds of one, None for a folder that was not exported; remembered: a file of the digests of
    pictures, or None.
    """

    path: Path
    items: pd.DataFrame
    kinds: dict[str, str]
    interactions: pd.DataFrame | None = None
    users: pd.DataFrame | None = None
    unusable: tuple[Unusable, ...] = ()
    rows: dict[str, int] = field(default_factory=dict)
    user_kinds: dict[str, str] = field(default_factory=dict)
    columns: tuple[Column, ...] = ()
    notes: tuple[str, ...] = ()
    same: np.ndarray | None = None
    store: StoreMark | None = None
    remembered: Path | None = None

    @property
    def keyed(self) -> bool:
        """Whether users are known by their keys, which are not to be hashed again."""
        return self.store is not None

    def require_key(self, user_key: str) -> None:
        """Raises CatalogueError where its users were hashed with another key."""
        if self.store is not None and self.store.user_key_check != key_check(user_key):
            raise CatalogueError(
                f"{self.path} was exported with another key of user ids: set VITRINE_USER_KEY to that one, or export "
                "the store again"
            )

    def unusable_by_reason(self) -> dict[tuple[str, str], int]:
        """(table, reason) -> how many rows, most frequent first."""
        return dict(Counter((u.table, u.reason) for u in self.unusable).most_common())

    def problem(self, max_share: float = MAX_UNUSABLE) -> str:
        """Why training cannot start from this, in a sentence; "" where it can: a table of which no row can be used, or
        too few."""
        found = {"items": self.items, "interactions": self.interactions, "users": self.users}
        for table, rows in self.rows.items():
            bad = len({u.row for u in self.unusable if u.table == table})
            if (usable := found[table]) is not None and usable.empty:
                return f"{table}: no usable row among {rows}" + (f"; most: {self._commonest(table)}" if bad else "")
            if rows and bad / rows > max_share:
                return (
                    f"{bad} of {rows} rows of {table} cannot be used ({100 * bad / rows:.1f} %, at most "
                    f"{100 * max_share:g} % allowed: --max-unusable), most: {self._commonest(table)}"
                )
        return ""

    def require_usable(self, max_share: float = MAX_UNUSABLE) -> None:
        """Stop where too large a share of a table's rows cannot be used, or all. Raises CatalogueError."""
        if problem := self.problem(max_share):
            raise CatalogueError(f"{problem}. `vitrine check {self.path}` lists them")

    def _commonest(self, table: str) -> str:
        reasons = Counter({u.row: u.reason for u in self.unusable if u.table == table}.values())
        return "".join(f"{reason} ({count} rows)" for reason, count in reasons.most_common(1))

    def with_pictures(self, unreadable: Mapping[int, Mapping[str, str]], same: np.ndarray) -> "Catalogue":
        """The catalogue after its pictures were decoded: without those that cannot be, with the reason kept.

        unreadable: row of items -> relative path of a picture -> the decoder's message; same: as the field.
        same: (items,) numbers, 0 for none."""
        items = self.items.copy()
        found = []
        for row, messages in unreadable.items():
            for path, message in messages.items():
                found.append(Unusable("items", int(items.at[row, ROW]), "unreadable picture", f"{path}: {message}"))
            items.at[row, "images"] = left = tuple(path for path in items.at[row, "images"] if path not in messages)
            items.at[row, "image"] = left[0] if left else None
        return replace(self, items=items, unusable=self.unusable + tuple(found), same=same)

    def things(self) -> np.ndarray:
        """(items,) int64: items that are one thing, by nearly the same picture, have the same number."""
        found = -1 - np.arange(len(self.items), dtype=np.int64)
        if self.same is not None:
            found = np.where(self.same > 0, self.same, found)
        return found

    def near_duplicates(self) -> list[list[str]]:
        """Ids of items whose pictures are nearly the same, each group in the order of rows."""
        if self.same is None:
            return []
        ids = self.items["item_id"].to_numpy()
        return [ids[self.same == number].tolist() for number in range(1, int(self.same.max(initial=0)) + 1)]

    def without_pictures(self) -> "Catalogue":
        """The catalogue as if no item had one."""
        return replace(self, items=self.items.assign(image=None, images=[()] * len(self.items)))

    def pictured(self) -> np.ndarray:
        """Rows of the items that have a picture. -> (n,)."""
        return np.flatnonzero(self.items["image"].notna().to_numpy())

    def pictures(self) -> list[tuple[int, str]]:
        """Item row and relative path of every picture, in the order of rows; the first of an item stands for it."""
        return [(int(row), path) for row in self.pictured() for path in self.items.at[row, "images"]]

    def picture(self, row: int) -> bytes:
        """The bytes of one item's picture, the first."""
        return self.read_picture(self.items.at[row, "image"])

    def read_picture(self, path: str) -> bytes:
        """The bytes of a picture by its relative path."""
        return (self.path / path).read_bytes()

    def primary_category(self) -> list[str | None]:
        """One category an item: the first of several."""
        return [(c[0] if c else None) if isinstance(c, list) else c for c in self.items["category"]]

    def category_numbers(self) -> np.ndarray:
        """(items,) int32: the number of each one's primary category, from 1 on, 0 where unknown."""
        return (pd.factorize(np.array(self.primary_category(), dtype=object))[0] + 1).astype(np.int32)

    def picture_digests(self) -> list[bytes]:
        """sha256 of every picture, in the order of `pictures`."""
        return digest_all([self.path / path for _, path in self.pictures()], remembered=self.remembered)

    def digests_by_row(self) -> dict[int, list[bytes]]:
        """The same by the row of the item, the first picture's first."""
        found: dict[int, list[bytes]] = {}
        for (row, _), digest in zip(self.pictures(), self.picture_digests(), strict=True):
            found.setdefault(row, []).append(digest)
        return found

    def fingerprint(self) -> str:
        """sha256 over every usable value and every picture's bytes."""
        digest = hashlib.sha256()
        for table in (self.items, self.interactions, self.users):
            text = "" if table is None else table.to_csv(index=False)
            digest.update(text.encode())
        for found in self.picture_digests():
            digest.update(found)
        return digest.hexdigest()
