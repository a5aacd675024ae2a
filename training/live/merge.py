"""Tables of a catalogue folder, and what a store holds beyond them -> tables in which both are one.

Cells are text, as a CSV has them, or lists of text: what a column holds is found out by whoever reads the folder.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from service.live.store import StoredEvent
from service.live.unit_of_work import ItemState
from service.recommender.user_keys import erasure_mark, hash_user
from training.data.catalogue import KEY, OF_INTERACTIONS, USER
from training.data.columns import split_tags
from training.data.rows import ROW, Table, is_nothing

IMAGES = ("image", "images")
EXACT = 2**53  # whole numbers up to here survive a double


def merge_items(
    table: Table | None, states: Sequence[ItemState], pictures: Mapping[str, Sequence[str]]
) -> pd.DataFrame:
    """Items as they are now, those of the folder first. states: in the order of their changes; pictures: item id ->
    paths of those that came from the store."""
    frame = pd.DataFrame({"item_id": []}, dtype=object) if table is None else table.frame.drop(columns=ROW)
    changed = {state.item_id: state for state in states}
    gone = [changed[item].withdrawn if item in changed else False for item in frame["item_id"]]
    frame = frame[~np.array(gone, bool)].reset_index(drop=True)
    rows = {item: row for row, item in reversed(list(enumerate(frame["item_id"])))}  # the first of a repeated id
    columns: dict[str, list[Any]] = {str(name): [_cell(value) for value in frame[name]] for name in frame}
    there = [state for state in changed.values() if not state.withdrawn]
    new = [state for state in there if state.item_id not in rows]
    for name in _names(columns, there, pictures):
        columns.setdefault(name, [None] * len(frame))
        columns[name] += [None] * len(new)
    rows |= {state.item_id: len(frame) + at for at, state in enumerate(new)}
    for state in there:
        _put(columns, rows[state.item_id], state, pictures.get(state.item_id))
    return pd.DataFrame(columns, dtype=object)


def _names(columns: Collection[str], states: Sequence[ItemState], pictures: Mapping[str, Sequence[str]]) -> list[str]:
    """Of all columns: those of the folder in their order, then those that came."""
    came = {name for state in states for name in state.attributes} | ({IMAGES[0]} if pictures else set())
    return [*columns, *sorted(came - set(columns))]


def _put(columns: dict[str, list[Any]], row: int, state: ItemState, pictures: Sequence[str] | None) -> None:
    columns["item_id"][row] = state.item_id
    if state.complete:
        for name in columns.keys() - {"item_id", *IMAGES}:
            columns[name][row] = None
    for name, value in state.attributes.items():
        columns[name][row] = _cell(value)
    if state.pictures is not None:
        for name in columns.keys() & set(IMAGES):
            columns[name][row] = None
    if pictures:
        columns[IMAGES[0]][row] = "|".join(pictures)


def merge_interactions(
    table: Table | None,
    events: Sequence[StoredEvent],
    *,
    withdrawn: Collection[str],
    erased: Collection[str],
    user_key: str,
) -> pd.DataFrame:
    """The log, by keys of users, without items that were withdrawn and without users who were erased.

    erased: their marks, which hold for the folder alone: what a user did after they were erased is in the store."""
    names = [KEY, *OF_INTERACTIONS[1:]]
    parts = []
    if table is not None:
        frame = table.frame
        keys = _keys(frame[USER], erased, user_key)
        kept = ~(keys.isin([""]) | frame["item_id"].isin(list(withdrawn))).to_numpy()
        columns = {KEY: keys} | {
            name: frame[name].map(_cell) if name in frame else None for name in OF_INTERACTIONS[1:]
        }
        parts.append(pd.DataFrame(columns, dtype=object)[kept])
    came = [
        (each.user_key, each.item_id, each.event, each.value, each.timestamp)
        for each in events
        if each.item_id not in withdrawn
    ]
    parts.append(pd.DataFrame([[_cell(cell) for cell in row] for row in came], columns=names, dtype=object))
    return pd.concat([part for part in parts if len(part)] or parts, ignore_index=True)[names]


def merge_users(table: Table, *, erased: Collection[str], user_key: str) -> pd.DataFrame:
    """Profiles by keys of users, without those who were erased."""
    frame = table.frame.drop(columns=ROW)
    keys = _keys(frame[USER], erased, user_key)
    cells = {KEY: keys} | {str(name): frame[name].map(_cell) for name in frame if name not in (USER, KEY)}
    return pd.DataFrame(cells, dtype=object)[(keys != "").to_numpy()].reset_index(drop=True)


def _keys(ids: pd.Series, erased: Collection[str], user_key: str) -> pd.Series:
    """The key of each id; "" of one who was erased, None where there is no id."""
    keys: dict[Any, str | None] = {None: None}
    for user_id in ids.dropna().unique():
        key = hash_user(user_id, user_key)
        keys[user_id] = "" if erasure_mark(key) in erased else key
    return pd.Series([keys[None if is_nothing(each) else each] for each in ids], dtype=object, index=ids.index)


def count_erased(ids: Collection[str], erased: Collection[str], user_key: str) -> int:
    """How many of these users were erased."""
    return sum(erasure_mark(hash_user(user_id, user_key)) in erased for user_id in ids) if erased else 0


def to_arrow(frame: pd.DataFrame) -> pa.Table:
    """Text, or lists of text where any cell of a column has several values."""
    convert: Callable[[Any], Any]
    columns = {}
    for name in frame:
        cells = frame[name].tolist()
        several = any(isinstance(cell, list) for cell in cells)
        convert = (lambda cell: None if cell is None else split_tags(cell)) if several else (lambda cell: cell)
        kind = pa.list_(pa.string()) if several else pa.string()
        columns[str(name)] = pa.array([convert(cell) for cell in cells], kind)
    return pa.table(columns)


def _cell(value: Any) -> Any:
    """A value as it would stand in a CSV; a list stays one, an empty one is nothing."""
    if is_nothing(value):
        return None
    if isinstance(value, list | tuple | np.ndarray):
        return [_cell(part) for part in value]
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer() and abs(value) < EXACT:
        return str(int(value))
    return str(value)
