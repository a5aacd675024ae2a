"""Which pictures of a catalogue an earlier release knows, and a look at those that are new."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from service.encoder import preprocessing
from service.encoder.selection import available_cpus
from service.errors import BadQuery
from training.data import duplicates
from training.data.catalogue import Catalogue
from training.data.pictures import SQUARE, Pictures, find_same, save_examined
from training.previous.release import Previous
from training.progress import say, track

AT_ONCE = 64  # pictures that are decoded together


class OnDemand:
    """The squares of a catalogue's pictures, each decoded when it is asked for."""

    def __init__(self, catalogue: Catalogue, rows: np.ndarray) -> None:
        self._catalogue, self._rows = catalogue, rows

    def __getitem__(self, positions: np.ndarray) -> np.ndarray:
        """(n,) -> (n, 256, 256, 3) uint8."""
        pictures = (self._catalogue.picture(int(row)) for row in self._rows[positions])
        return preprocessing.decode_all(pictures, preprocessing=SQUARE)


def on_demand(catalogue: Catalogue) -> Pictures:
    """The pictures of a catalogue that was examined."""
    rows = catalogue.pictured()
    return Pictures(OnDemand(catalogue, rows), rows)


def examine_new(catalogue: Catalogue, previous: Previous, folder: Path) -> int:
    """What `decode_catalogue` would find, where only the pictures that the release does not know are decoded; into
    `folder`: rows.npy, colours.npy, same.npy and unreadable.json. Returns how many were decoded."""
    known, digests = previous.pictures, catalogue.digests_by_row()
    rows = catalogue.pictured().tolist()
    unreadable: dict[int, dict[str, str]] = {}
    colours: dict[int, np.ndarray] = {}
    new: list[int] = []
    for row in rows:
        colour = known.colours.get(digests[row][0])
        if colour is None:
            new.append(row)
        else:
            colours[row] = colour

    def look(row: int) -> None:
        for path in catalogue.items.at[row, "images"]:
            try:
                pixels = preprocessing.decode(catalogue.read_picture(path), preprocessing=SQUARE)
            except (BadQuery, OSError) as error:
                unreadable.setdefault(row, {})[path] = str(error)
            else:
                colours[row] = duplicates.coarse(pixels)
                return

    with ThreadPoolExecutor(available_cpus()) as pool:
        for _ in track(pool.map(look, new), "decoding new pictures", total=len(new)):
            pass
    there = np.array(sorted(colours), np.int64)
    seen = np.array([colours[row] for row in there.tolist()], np.uint8).reshape(len(there), -1)
    before = _groups_before(catalogue, previous, there, set(new))
    squares = OnDemand(catalogue, there)
    same = find_same(catalogue, there, seen, lambda at: squares[np.array([at])][0], before=before)
    save_examined(folder, rows=there, colours=seen, same=same, unreadable=unreadable)
    say(f"pictures: {len(new)} new ones; {len(rows) - len(new)} as in release {previous.number}")
    return len(new)


def new_pictures(catalogue: Catalogue, previous: Previous) -> np.ndarray:
    """Rows of the items whose first picture the release does not know. -> (n,)."""
    digests = catalogue.digests_by_row()
    known = previous.pictures.digests
    return np.array([row for row in catalogue.pictured().tolist() if digests[row][0] not in known], np.int64)


def _groups_before(catalogue: Catalogue, previous: Previous, rows: np.ndarray, new: set[int]) -> np.ndarray:
    """(n,) the number of each item's near-duplicates in the release, 0 for none, -1 where its picture is new."""
    same = previous.release.items.same()
    ids: Sequence[str] = catalogue.items["item_id"].to_numpy()[rows].tolist()
    before = previous.rows_of(ids)
    found = np.full(len(rows), -1, np.int64)
    if same is None:
        return found
    old = (before >= 0) & ~np.isin(rows, list(new))
    # an item that has another item's picture now was not compared by it
    digests, known = catalogue.digests_by_row(), previous.pictures
    own = np.array([known.first.get(digests[row][0], -1) for row in rows.tolist()], np.int64)
    old &= own == before
    found[old] = same[before[old]]
    return found
