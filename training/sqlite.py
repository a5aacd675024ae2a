"""Addresses of SQLite files, as SQLAlchemy and MLflow take them."""

import os
import urllib.parse
from pathlib import Path

PATIENCE = 5.0  # seconds for a locked file


def sqlite_url(path: Path, *, reading: bool = False) -> str:
    """SQLAlchemy's address of an SQLite file, whatever letters its path has. reading: the file must be there already,
    and nothing is written to it, unless a crash left something half done that has to be undone first."""
    place = urllib.parse.quote(urllib.parse.quote(str(path.resolve())))  # SQLAlchemy decodes once, and SQLite once more
    mode = ("rw" if os.access(path.parent, os.W_OK) else "ro") if reading else "rwc"
    # with its driver, since MLflow makes folders of what it takes for the path of a plain sqlite:///
    return f"sqlite+pysqlite:///file:{place}?mode={mode}&uri=true&timeout={PATIENCE:g}"


def sqlite_path(uri: str) -> Path | None:
    """The file behind an address such as sqlite:///releases/mlflow.db; None where there is another kind of database."""
    scheme, found, place = uri.partition(":///")
    if not found or scheme.partition("+")[0] != "sqlite":
        return None
    if not place.startswith("file:"):
        return Path(place)
    plain = place.removeprefix("file:").partition("?")[0]
    return Path(urllib.parse.unquote(urllib.parse.unquote(plain)))
