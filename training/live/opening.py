"""A store that is there: to read one that nobody has written says that nothing was changed, whatever was meant."""

from pathlib import Path

from service.errors import VitrineError
from service.live.store import Store
from training.sqlite import sqlite_path


def open_store(url: str) -> Store:
    """Raises VitrineError where a file of SQLite's is not there; StoreAway, StoreTooNew."""
    path = sqlite_path(url) if "://" in url else Path(url)
    if path is not None and not path.exists():
        raise VitrineError(f"there is no store at {path}: name the one that the service keeps (VITRINE_STORE)")
    return Store.open(url)
