"""A store as training reads it: one that is there, and all of it."""

from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from service.errors import VitrineError
from service.live.store import Changes, Store
from training.sqlite import sqlite_path


def open_store(url: str) -> Store:
    """Raises VitrineError where a file of SQLite's is not there: to read one that nobody has written says that nothing
    was changed, whatever was meant. Raises StoreAway, StoreTooNew."""
    path = sqlite_path(url) if "://" in url else Path(url)
    if path is not None and not path.exists():
        raise VitrineError(f"there is no store at {path}: name the one that the service keeps (VITRINE_STORE)")
    return Store.open(url)


def read_all(store: Store) -> Changes:
    """Everything, up to one number. Raises StoreAway.

    It is read in parts, while others write. Where a session was joined or a user erased meanwhile, what was read before
    that is not so any more, and all is read again."""
    while True:
        began = store.position()
        parts = list(_parts(store, 0))
        if not any(part.links or part.erased for part in _parts(store, began)):
            return _joined(parts)


def _parts(store: Store, after: int) -> Iterator[Changes]:
    while (part := store.changes(after)).upto > after:
        after = part.upto
        yield part


def _joined(parts: list[Changes]) -> Changes:
    """Of an item that was changed again meanwhile the later state."""
    states = {state.item_id: state for part in parts for state in part.items}
    return Changes(
        parts[-1].upto if parts else 0,
        sorted(states.values(), key=lambda state: state.sequence),
        list(chain.from_iterable(part.events for part in parts)),
        list(chain.from_iterable(part.links for part in parts)),
        list(chain.from_iterable(part.erased for part in parts)),
    )
