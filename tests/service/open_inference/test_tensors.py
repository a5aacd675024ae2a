"""Tensors of the inference protocol, as bytes and as lists."""

from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.utils import serialize_byte_tensor

from service.errors import Malformed
from service.open_inference.tensors import NUMBERS, SentTensor, Tensor, texts


@given(st.lists(st.binary(max_size=20), max_size=20))
def test_bytes_are_laid_out_as_tritons_client_does(elements: list[bytes]) -> None:
    """Length and element, one after the other; and back."""
    array = texts(elements)
    raw = Tensor("x", "BYTES", array).raw()
    assert raw == (serialize_byte_tensor(array).item() if elements else b"")
    assert SentTensor("x", "BYTES", (len(elements),), raw).array("m").tolist() == elements


@given(st.binary(max_size=64), st.integers(0, 8))
def test_no_bytes_crash_the_reader(raw: bytes, n: int) -> None:
    """Whatever comes is read as n elements, or refused as malformed."""
    with suppress(Malformed):
        assert SentTensor("x", "BYTES", (n,), raw).array("m").shape == (n,)


@pytest.mark.parametrize("datatype", NUMBERS)
def test_numbers_come_back_as_they_were(datatype: str) -> None:
    """As raw bytes and as a JSON list, flat or nested."""
    array = np.array([[0, 1], [1, 0]], NUMBERS[datatype])
    raw = Tensor("x", datatype, array).raw()
    assert (SentTensor("x", datatype, (2, 2), raw).array("m") == array).all()
    for data in (Tensor("x", datatype, array).values(), array.tolist()):
        found = SentTensor("x", datatype, (2, 2), data).array("m")
        assert found.dtype == NUMBERS[datatype]
        assert (found == array).all()


@pytest.mark.parametrize(
    ("datatype", "shape", "data"),
    [("UINT8", (2,), [256, 0]), ("UINT8", (2,), [-1, 0]), ("UINT8", (2,), [0.5, 1]), ("UINT8", (2,), [True, False]),
     ("UINT8", (2,), [0]), ("UINT8", (2,), ["1", "2"]), ("INT64", (1,), [2**64]), ("FP32", (2,), [[1], [1, 2]]),
     ("FP32", (1,), [None]), ("BYTES", (1,), [1]), ("BYTES", (2,), [["a"], "b"]), ("BOOL", (1,), [1]),
     ("UINT8", (3,), b"12"), ("UINT8", (1,), b"12"), ("BYTES", (1,), b"\xff\xff\xff\xffa"),
     ("BYTES", (2,), b"\1\0\0\0a"),
     ("BYTES", (2**40,), b""), ("BYTES", (1,), ["\ud800"])],
)  # fmt: skip
def test_data_that_does_not_fit_its_shape_or_type_is_refused(datatype: str, shape: tuple, data: object) -> None:
    """With a message that names the tensor."""
    with pytest.raises(Malformed, match=r"x|data mixes"):
        SentTensor("x", datatype, shape, data).array("m")  # type: ignore[arg-type]


def test_nan_is_null_in_json() -> None:
    """JSON has no NaN; tritonclient reads null as NaN again."""
    assert Tensor("x", "FP32", np.array([1, np.nan], np.float32)).values() == [1.0, None]
