"""Files that are written whole or not at all, and their digests."""

import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A place beside `path` to write a file or a folder to. It becomes `path` when the block ends, in one step; where
    the block raises, it is removed, and what was at `path` stays."""
    aside = path.with_name(f".part.{path.name}")  # its suffix stays: some writers go by it
    _remove(aside)  # of one that was killed
    try:
        yield aside
        aside.replace(path)
    except BaseException:
        _remove(aside)
        raise


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    with replacing(path) as aside:
        aside.write_text(text)


def digest(path: Path) -> str:
    """sha256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
