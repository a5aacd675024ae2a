"""Inputs as Triton's clients send them, over REST and gRPC."""

from typing import Any

import numpy as np


def tensor(kind: Any, name: str, values: np.ndarray, datatype: str) -> Any:
    """An input."""
    made = kind.InferInput(name, list(values.shape), datatype)
    made.set_data_from_numpy(values)
    return made


def recommender_inputs(kind: Any, *, image: bytes = b"", user_id: str = "", k: int = 10) -> list[Any]:
    """One row of the model recommender."""
    return [
        tensor(kind, "IMAGE", np.array([image], object), "BYTES"),
        tensor(kind, "USER_ID", np.array([user_id.encode()], object), "BYTES"),
        tensor(kind, "K", np.array([k], np.int32), "INT32"),
    ]
