"""Small pictures of the items, for pages."""

from pathlib import Path

import numpy as np

from service.errors import NotFound


class Thumbnails:
    """Small JPEGs of the items, one after another in one memory-mapped file."""

    def __init__(self, path: Path, offsets: np.ndarray) -> None:
        """offsets: (items + 1,) int64; an item without a picture has length 0."""
        self._bytes = np.memmap(path, dtype=np.uint8, mode="r") if path.stat().st_size else np.empty(0, np.uint8)
        self._offsets = offsets

    def jpeg(self, row: int) -> bytes:
        """The picture of one item. Raises NotFound where there is none."""
        start, end = int(self._offsets[row]), int(self._offsets[row + 1])
        if start == end:
            raise NotFound("this item has no picture", field="item_id")
        return self._bytes[start:end].tobytes()
