"""Tensors of the Open Inference Protocol: what a client sent, checked, as numpy arrays, and back.

Text and pictures are datatype BYTES: an array of Python `bytes`; on the wire each element follows its length in four
little-endian bytes. (Protocol: https://github.com/kserve/open-inference-protocol; extensions as Triton defines them.)
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from service.errors import Malformed

BYTES = "BYTES"
NUMBERS: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    **{f"INT{bits}": np.dtype(f"int{bits}") for bits in (8, 16, 32, 64)},
    **{f"UINT{bits}": np.dtype(f"uint{bits}") for bits in (8, 16, 32, 64)},
    **{f"FP{bits}": np.dtype(f"float{bits}") for bits in (16, 32, 64)},
}
DATATYPES = (*NUMBERS, BYTES)


@dataclass(frozen=True, slots=True)
class Tensor:
    """A named array; its dtype is object, with `bytes` for elements, where `datatype` is BYTES."""

    name: str
    datatype: str
    array: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        """As the protocol gives it."""
        return self.array.shape

    def raw(self) -> bytes:
        """The elements as the binary tensor extension and gRPC lay them out."""
        if self.datatype != BYTES:
            return np.ascontiguousarray(self.array).tobytes()
        return b"".join(len(element).to_bytes(4, "little") + element for element in self.array.ravel())

    def values(self) -> list[Any]:
        """The elements for JSON, flat, in row order. NaN, which JSON lacks, is null; text that is not UTF-8 has
        replacement characters."""
        if self.datatype == BYTES:
            return [element.decode(errors="replace") for element in self.array.ravel()]
        if self.array.dtype.kind == "f":
            return [value if math.isfinite(value) else None for value in self.array.ravel().tolist()]
        return list(self.array.ravel().tolist())


@dataclass(frozen=True, slots=True)
class SentTensor:
    """What a client sent under a name, not yet looked at: raw bytes, or values as JSON or a protobuf list gave them."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: bytes | memoryview | Sequence[Any]

    @property
    def elements(self) -> int:
        """How many the shape asks for."""
        return math.prod(self.shape)

    def array(self, model: str) -> np.ndarray:
        """The elements in their shape. Raises Malformed where shape and data do not agree; `model` is for its text.

        -> of `shape`."""
        if isinstance(self.data, bytes | memoryview):
            found = self._unpack(self.data, model) if self.datatype == BYTES else self._view(self.data, model)
        elif self.datatype == BYTES:
            found = _texts(self.name, self.data)
        else:
            found = _numbers(self.name, self.datatype, self.data)
        if found.size != self.elements:
            raise Malformed(
                f"input '{self.name}' for model '{model}' has {found.size} elements, and its shape "
                f"{shown_shape(self.shape)} asks for {self.elements}"
            )
        return found.reshape(self.shape)

    def _view(self, data: bytes | memoryview, model: str) -> np.ndarray:
        dtype = NUMBERS[self.datatype]
        self._require_size(self.elements * dtype.itemsize, len(data), model)
        return np.frombuffer(data, dtype)

    def _unpack(self, data: bytes | memoryview, model: str) -> np.ndarray:
        self._require_size(4 * self.elements, len(data), model, least=True)
        elements, at, end = [], 0, len(data)
        while at < end:
            length = int.from_bytes(data[at : at + 4], "little")
            at += 4
            if at + length > end:
                raise Malformed(
                    f"input '{self.name}' for model '{model}': an element claims {length} bytes, and {max(0, end - at)}"
                    " are left"
                )
            elements.append(bytes(data[at : at + length]))
            at += length
        return _of_objects(elements)

    def _require_size(self, expected: int, got: int, model: str, *, least: bool = False) -> None:
        if got < expected or (got > expected and not least):
            raise Malformed(
                f"input byte size mismatch for input '{self.name}' for model '{model}'. Expected {expected}"
                f"{' or more' if least else ''}, got {got}"
            )


def shown_shape(shape: Sequence[int]) -> str:
    """[1,224,224,3]"""
    return f"[{','.join(str(size) for size in shape)}]"


def texts(values: Sequence[bytes | str]) -> np.ndarray:
    """Text as an array of BYTES: (n,)."""
    return _of_objects([value.encode() if isinstance(value, str) else value for value in values])


def _of_objects(elements: list[bytes]) -> np.ndarray:
    array = np.empty(len(elements), object)  # np.array would make fixed-width strings of them
    array[:] = elements
    return array


def _texts(name: str, data: Sequence[Any]) -> np.ndarray:
    flat: list[bytes] = []
    for value in _flat(data):
        if not isinstance(value, str | bytes):
            raise Malformed(f"input '{name}' is BYTES: its data must be text; got {type(value).__name__}")
        try:
            flat.append(value.encode() if isinstance(value, str) else value)
        except UnicodeEncodeError as error:
            raise Malformed(f"input '{name}': {error.reason}") from error
    return _of_objects(flat)


def _flat(data: Sequence[Any]) -> list[Any]:
    """The innermost elements of lists in lists."""
    while any(isinstance(value, list) for value in data):
        if not all(isinstance(value, list) for value in data):
            raise Malformed("data mixes lists with elements")
        data = [element for value in data for element in value]
    return list(data)


def _numbers(name: str, datatype: str, data: Sequence[Any]) -> np.ndarray:
    dtype = NUMBERS[datatype]
    try:
        found = np.array(data)
    except (ValueError, OverflowError) as error:
        raise Malformed(f"the data of input '{name}' is ragged, or no list of numbers") from error
    kinds = {"b": "b", "i": "iu", "u": "iu", "f": "iuf"}[dtype.kind]
    if not found.size:
        return np.empty(0, dtype)
    if found.dtype.kind not in kinds:
        raise Malformed(f"the data of input '{name}' must be {datatype}; got {found.dtype.name}")
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        if found.min() < limits.min or found.max() > limits.max:
            raise Malformed(
                f"the data of input '{name}' must be {datatype}, {limits.min} to {limits.max}; "
                f"got {found.min()} to {found.max()}"
            )
    with np.errstate(over="ignore"):
        return found.astype(dtype)
