from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, numpy_helper

from lit_compress.files.onnx_wire import fields, numbers, parts, text

WHOLE = st.integers(-(2**63), 2**63 - 1)


@given(st.lists(st.integers(0, 2**40)), st.lists(WHOLE), st.text())
def test_fields_are_those_of_protobuf(dims: list[int], values: list[int], name: str) -> None:
    tensor = TensorProto(dims=dims, int64_data=values, name=name, data_type=7)
    message = memoryview(tensor.SerializeToString())
    assert numbers(message, 1) == dims
    assert numbers(message, 7) == values
    assert text(message, 8) == name
    assert numbers(message, 2) == [7]


def test_bytes_are_not_copied() -> None:
    tensor = numpy_helper.from_array(np.arange(6, dtype=np.float32), "w")
    message = memoryview(tensor.SerializeToString())
    (raw,) = parts(message, 9)
    np.testing.assert_array_equal(np.frombuffer(raw, np.float32), np.arange(6))


@given(st.binary(max_size=40))
def test_any_bytes_end(content: bytes) -> None:
    try:
        found = list(fields(memoryview(content)))
    except ValueError:
        return
    assert sum(len(v) for _, v in found if isinstance(v, memoryview)) <= len(content)


@pytest.mark.parametrize("content", [b"\x08", b"\x12\x05a", b"\x0b", b"\x08" + b"\xff" * 11])
def test_damaged_messages(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"truncated|unknown type|too many"):
        list(fields(memoryview(content)))
