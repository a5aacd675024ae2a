"""Catalogue folders of a few rows."""

from pathlib import Path

NOW = 1_700_000_000


def folder_of(tmp_path: Path, **files: str | bytes) -> Path:
    """A catalogue folder; file names have __ for the dot."""
    (tmp_path / "images").mkdir()
    for name, text in files.items():
        content = text if isinstance(text, bytes) else text.encode()
        (tmp_path / name.replace("__", ".")).write_bytes(content)
    return tmp_path


ITEMS = "item_id,image,title,category\n1,,One,a\n2,,Two,b\n"
