"""The chain as people glue it from onnxruntime, hnswlib and numpy, over the files of a release: for both peers."""

import hashlib
import io
from pathlib import Path

import hnswlib
import numpy as np
import onnxruntime
import pyarrow.parquet as pq
from PIL import Image

POOL = 500
DEFAULT_USER_KEY = hashlib.sha256(b"vitrine").digest()


class Chain:
    """A picture, perhaps a user -> items with scores."""

    def __init__(self, release: Path, *, threads: int) -> None:
        """threads: of one call of onnxruntime; 0 leaves them to it."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self._session = onnxruntime.InferenceSession(
            str(release / "encoder.onnx"), options, providers=["CPUExecutionProvider"]
        )
        self._ids = pq.read_table(release / "items.parquet")["item_id"].to_pylist()
        vectors = np.load(release / "vectors.npy")
        rows = np.flatnonzero(~np.isnan(vectors[:, 0]))
        self._pool = min(POOL, len(rows))
        self._index = hnswlib.Index("ip", vectors.shape[1])
        self._index.init_index(len(rows), M=16, ef_construction=200)
        self._index.add_items(vectors[rows], rows)
        self._index.set_ef(self._pool)
        self._users: dict[str, int] = {}
        if (release / "ranker" / "user_factors.npy").exists():
            keys = pq.read_table(release / "ranker" / "users.parquet")["user"].to_pylist()
            self._users = {key: row for row, key in enumerate(keys)}
            self._user_factors = np.load(release / "ranker" / "user_factors.npy")
            self._item_factors = np.load(release / "ranker" / "item_factors.npy")

    def decode(self, picture: bytes) -> np.ndarray:
        """The shorter side scaled to 256, the centre 224 x 224 taken: (224, 224, 3) uint8."""
        image = Image.open(io.BytesIO(picture)).convert("RGB")
        scale = 256 / min(image.size)
        image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BILINEAR)
        left, top = (image.width - 224) // 2, (image.height - 224) // 2
        return np.asarray(image.crop((left, top, left + 224, top + 224)))

    def encode(self, pixels: np.ndarray) -> np.ndarray:
        """pixels: (n, 224, 224, 3) -> (n, dim)."""
        return self._session.run(None, {"images": pixels})[0]

    def rank(self, vector: np.ndarray, *, k: int, user_id: str | None = None) -> list[dict]:
        """The k best of the neighbours, by likeness and, for a known user, by factors."""
        rows, distances = self._index.knn_query(vector[None], k=self._pool)
        rows, scores = rows[0].astype(np.int64), 1 - distances[0]
        if user_id is not None and (user := self._users.get(_hash(user_id))) is not None:
            scores = scores + self._item_factors[rows] @ self._user_factors[user]
        best = np.argsort(-scores)[:k]
        return [{"item_id": self._ids[rows[at]], "score": float(scores[at])} for at in best]


def _hash(user_id: str) -> str:
    """The name of a user in a release that was made with the public default key."""
    return hashlib.blake2b(user_id.encode(), key=DEFAULT_USER_KEY, digest_size=16).hexdigest()
