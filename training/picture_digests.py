"""The sha256 of pictures, remembered: a file of the same place, size and time of change is not read again."""

import hashlib
import time
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from service.files import replacing
from training.progress import say, track

SETTLED = 2.0  # seconds: a file that was changed a moment ago may be changed again within one tick of its clock
MANY = 1000  # pictures whose reading takes long enough to be shown
SCHEMA = pa.schema(
    [("path", pa.string()), ("size", pa.int64()), ("changed", pa.int64()), ("inode", pa.int64()),
     ("digest", pa.binary(32))]
)  # fmt: skip

Place = tuple[int, int, int]  # size, time of change in nanoseconds, inode


def remembered_in(releases: Path) -> Path:
    """The file beside these releases that says what is known."""
    return releases / ".stages" / "digests.parquet"


def digest_all(paths: Sequence[Path], *, remembered: Path | None = None) -> list[bytes]:
    """32 bytes of each. remembered: the file that says what is known already, and is told what was found; None reads
    every picture."""
    known = {} if remembered is None else _read(remembered)
    places = [_place(path) for path in paths]
    found: dict[str, tuple[Place, bytes]] = {}
    unknown = [at for at, path in enumerate(paths) if known.get(str(path), (None,))[0] != places[at]]
    for at in track(unknown, "reading pictures") if len(unknown) >= MANY else unknown:
        found[str(paths[at])] = places[at], hashlib.sha256(paths[at].read_bytes()).digest()
    settled = {name: each for name, each in found.items() if _is_settled(each[0])}
    if remembered is not None and settled:
        _write(remembered, known | settled)
    return [found[name][1] if (name := str(path)) in found else known[name][1] for path in paths]


def _place(path: Path) -> Place:
    status = path.stat()
    return status.st_size, status.st_mtime_ns, status.st_ino


def _is_settled(place: Place) -> bool:
    return time.time() - place[1] / 1e9 > SETTLED


def _read(remembered: Path) -> dict[str, tuple[Place, bytes]]:
    """Nothing where it is not there, or is no file of ours: it can be made again."""
    try:
        table = pq.read_table(remembered, schema=SCHEMA)
    except (OSError, pa.ArrowException):
        return {}
    columns = [table.column(name).to_pylist() for name in SCHEMA.names]
    return {path: ((size, at, inode), digest) for path, size, at, inode, digest in zip(*columns, strict=True)}


def _write(remembered: Path, known: dict[str, tuple[Place, bytes]]) -> None:
    rows = [dict(zip(SCHEMA.names, (path, *place, digest), strict=True)) for path, (place, digest) in known.items()]
    try:
        remembered.parent.mkdir(parents=True, exist_ok=True)
        with replacing(remembered) as aside:
            pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), aside)
    except OSError as error:
        say(f"what pictures were read cannot be remembered in {remembered}: {error}")
