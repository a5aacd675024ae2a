"""A catalogue folder and a store -> a catalogue folder that holds both, without a single user id."""

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from service.errors import CatalogueError
from service.live.store import Changes, Store
from service.live.unit_of_work import ItemState
from service.recommender.user_keys import key_check
from training.data.catalogue import USER, StoreMark
from training.data.catalogue_reader import find_picture, picture_names, require_folder
from training.data.rows import Table
from training.data.tables import read_table
from training.live import merge
from training.live.reading import read_all
from training.progress import say

PICTURES = "images/store"  # of the folder that is written: the pictures that came from the store, by digest
SUFFIXES = ((b"\xff\xd8\xff", ".jpg"), (b"\x89PNG", ".png"), (b"GIF8", ".gif"), (b"BM", ".bmp"), (b"II*\0", ".tif"),
            (b"MM\0*", ".tif"))  # fmt: skip


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written. mark: what the folder holds of the store; withdrawn, erased: how many items and users of the
    folder's own were left out."""

    mark: StoreMark
    items: int
    interactions: int
    pictures: int
    withdrawn: int
    erased: int


def export(store: Store, catalogue: Path | None, out: Path, *, user_key: str) -> Exported:
    """Write the folder `out`, whole or not at all; pictures that are there from before are not fetched again.

    catalogue: None where the store holds everything. Raises CatalogueError, StoreAway."""
    tables = {} if catalogue is None else _tables(catalogue)
    changes = read_all(store)
    items = tables.get("items")
    states = list(changes.items)
    known = set() if items is None else set(items.frame["item_id"])
    # a patch of an item that neither the folder nor the store has whole says nothing of it
    partial = {each.item_id for each in states if not (each.complete or each.withdrawn or each.item_id in known)}
    if partial:
        say(f"store: {len(partial)} items were changed that no catalogue holds, such as {min(partial)}; left out")
    states = [state for state in states if state.item_id not in partial]
    mark = StoreMark(store.id, changes.upto, key_check(user_key))
    out.parent.mkdir(parents=True, exist_ok=True)
    with _replacing_folder(out) as aside:
        pictures = _fetch(store, states, aside, before=out)
        merged = merge.merge_items(items, states, pictures)
        if not len(merged):
            raise CatalogueError("neither the catalogue nor the store holds an item: there is nothing to export")
        pq.write_table(merge.to_arrow(merged), aside / "items.parquet")
        if catalogue is not None and items is not None:
            _link(items, catalogue, aside)
        log, erased = _write_users(tables, changes, states, aside, user_key)
        mark.write(aside)
    withdrawn = sum(state.withdrawn and state.item_id in known for state in states)
    fetched = len({path for paths in pictures.values() for path in paths})
    return Exported(mark, len(merged), log, fetched, withdrawn, erased)


def _tables(catalogue: Path) -> dict[str, Table]:
    """Raises CatalogueError."""
    require_folder(catalogue)
    if StoreMark.read(catalogue) is not None:
        raise CatalogueError(f"{catalogue} was exported from a store: name the catalogue folder that it was made of")
    asked = {
        "items": (("item_id",), ("item_id",)),
        "interactions": ((USER, "item_id", "timestamp"), (USER, "item_id")),
        "users": ((USER,), (USER,)),
    }
    found = {name: read_table(catalogue, name, required=need, ids=ids) for name, (need, ids) in asked.items()}
    for table in found.values():
        for unusable in () if table is None else table.unusable:
            say(f"{unusable.table}: row {unusable.row} is left out: {unusable.reason}")
    return {name: table for name, table in found.items() if table is not None}


def _write_users(
    tables: Mapping[str, Table], changes: Changes, states: list[ItemState], folder: Path, user_key: str
) -> tuple[int, int]:
    """Write the log and the profiles -> how many interactions there are, and how many users of the folder were
    erased."""
    marks = set(changes.erased)
    withdrawn = {state.item_id for state in states if state.withdrawn}
    log = merge.merge_interactions(
        tables.get("interactions"), changes.events, withdrawn=withdrawn, erased=marks, user_key=user_key
    )
    if len(log):
        pq.write_table(merge.to_arrow(log), folder / "interactions.parquet")
    if (profiles := tables.get("users")) is not None:
        kept = merge.merge_users(profiles, erased=marks, user_key=user_key)
        if len(kept):
            pq.write_table(merge.to_arrow(kept), folder / "users.parquet")
    ids = {user for table in tables.values() if USER in table.frame for user in table.frame[USER].dropna().unique()}
    return len(log), merge.count_erased(ids, marks, user_key)


def _fetch(store: Store, states: list[ItemState], folder: Path, *, before: Path) -> dict[str, list[str]]:
    """The pictures that came with items, into `folder` -> their paths there by item."""
    (folder / PICTURES).mkdir(parents=True)
    there = {path.stem: path for path in (before / PICTURES).glob("*")} if before.exists() else {}
    written: dict[str, str | None] = {}
    for digest in dict.fromkeys(digest for state in states for digest in state.pictures or ()):
        if (old := there.get(digest)) is not None:
            written[digest] = f"{PICTURES}/{old.name}"
            _link_file(old, folder / PICTURES / old.name)
        elif (content := store.picture(digest)) is not None:
            written[digest] = f"{PICTURES}/{digest}{_suffix(content)}"
            (folder / PICTURES / f"{digest}{_suffix(content)}").write_bytes(content)
        else:
            say(f"store: the picture {digest[:12]} is not there any more")
    return {
        state.item_id: [path for digest in state.pictures if (path := written.get(digest)) is not None]
        for state in states
        if state.pictures
    }


def _link(items: Table, catalogue: Path, folder: Path) -> None:
    """Every picture that the folder's own items name, at the same place."""
    columns = [items.frame[name] for name in merge.IMAGES if name in items.frame]
    names = dict.fromkeys(name for column in columns for cell in column for name in picture_names(catalogue, cell))
    for name in names:
        place, reason = find_picture(catalogue, name)
        if not reason:
            (folder / place).parent.mkdir(parents=True, exist_ok=True)
            _link_file((catalogue / place).resolve(), folder / place)


def _link_file(source: Path, target: Path) -> None:
    """The same file under another name; a link to it where it is on another disk."""
    try:
        os.link(source, target)
    except OSError:
        target.symlink_to(source.absolute())


def _suffix(content: bytes) -> str:
    return next((suffix for start, suffix in SUFFIXES if content.startswith(start)), ".picture")


@contextmanager
def _replacing_folder(out: Path) -> Iterator[Path]:
    """A folder beside `out` to write; it takes the place of `out` when the block ends."""
    aside = Path(tempfile.mkdtemp(prefix=".part.", dir=out.parent))
    try:
        (aside / "new").mkdir()
        yield aside / "new"
        if out.exists():
            out.replace(aside / "old")
        (aside / "new").replace(out)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
