"""The text in the files of a release, each decoded by its format: the bytes of a compressed file show nothing of it."""

import html
import json
import re
from collections.abc import Callable, Collection
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

EMBEDDED = re.compile(r"data:[a-z/+-]+;base64,[A-Za-z0-9+/=]+")  # pictures in a page


def of_bytes(data: bytes) -> str:
    """A letter for each byte; without the zeros that UTF-16 and UTF-32 have between letters of ASCII."""
    return data.replace(b"\0", b"").decode("latin-1")


def of_parquet(path: Path) -> str:
    """Every value, the names of the columns, and the metadata."""
    return f"{pq.read_table(path).to_pylist()} {pq.read_schema(path).names} {pq.read_metadata(path).metadata}"


def of_array(path: Path) -> str:
    """Strings as they are, and the bytes of numbers, which could be letters, row by row."""
    values = np.load(path, allow_pickle=False)
    if values.dtype.kind in "US":
        return str(values.tolist())
    return " ".join(of_bytes(row.tobytes()) for row in np.atleast_2d(values))


def of_json(path: Path) -> str:
    """Every key and value, their escapes resolved."""
    return json.dumps(json.loads(path.read_text()), ensure_ascii=False)


def of_page(path: Path) -> str:
    """Without the pictures in it, whose letters mean nothing."""
    return html.unescape(EMBEDDED.sub("", path.read_text()))


def of_plain_file(path: Path) -> str:
    """Of a format that compresses no text."""
    return of_bytes(path.read_bytes())


READERS: dict[str, Callable[[Path], str]] = {
    ".parquet": of_parquet, ".npy": of_array, ".json": of_json, ".html": of_page, ".onnx": of_plain_file,
    ".faiss": of_plain_file, ".bin": of_plain_file, ".picture": of_plain_file,
}  # fmt: skip


def ids_in(path: Path, ids: Collection[str]) -> set[str]:
    """Those that the file names; digits before or after them make another number of them. KeyError for a format that
    nothing here can decode."""
    anyone = re.compile(rf"(?<![0-9.])(?:{'|'.join(map(re.escape, sorted(ids)))})(?![0-9])")
    return set(anyone.findall(READERS[path.suffix](path)))
