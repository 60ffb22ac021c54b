"""Tensors are found where the onnx package finds them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from lit_compress.errors import ArtifactError
from lit_compress.packed.onnx_tensors import find_tensors

FILE = Path(__file__).parents[2] / "examples/digits_int8/model.onnx"


def test_those_of_a_network() -> None:
    data = FILE.read_bytes()
    found = {tensor.name: tensor for tensor in find_tensors(data, "file")}
    expected = {
        tensor.name: numpy_helper.to_array(tensor)
        for tensor in onnx.load(FILE).graph.initializer
        if len(tensor.raw_data) >= 48
    }
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype.name, array.shape)
        assert data[found[name].start : found[name].end] == array.tobytes()


def model(*tensors: TensorProto) -> bytes:
    """A branch in a graph in an attribute, with a constant in it."""
    constants = [
        helper.make_node("Constant", [], [f"c{index}"], value=tensor)
        for index, tensor in enumerate(tensors)
    ]
    inner = helper.make_graph(constants, "inner", [], [])
    branch = helper.make_node("If", ["x"], ["y"], then_branch=inner, else_branch=inner)
    made = helper.make_model(helper.make_graph([branch], "net", [], [], list(tensors)))
    return made.SerializeToString()


def test_constants_in_branches() -> None:
    tensor = numpy_helper.from_array(np.arange(20.0), "w")
    found = find_tensors(model(tensor), "file")
    assert [t.shape for t in found] == [(20,)] * 3
    assert [t.start for t in found] == sorted(t.start for t in found)


def test_values_that_are_not_raw() -> None:
    floats = helper.make_tensor("f", TensorProto.FLOAT, (4, 4), range(16))
    doubles = helper.make_tensor("d", TensorProto.DOUBLE, (8,), range(8))
    varints = helper.make_tensor("i", TensorProto.INT32, (40,), range(40))
    found = find_tensors(model(floats, doubles, varints), "file")
    assert {(t.name, t.dtype, t.shape) for t in found} == {
        ("f", "float32", (4, 4)),
        ("d", "float64", (8,)),
    }


def test_types_that_numpy_has_not() -> None:
    raw = bytes(range(64))
    brain = helper.make_tensor("b", TensorProto.BFLOAT16, (32,), raw, raw=True)
    packed = helper.make_tensor("p", TensorProto.INT4, (128,), raw, raw=True)
    found = find_tensors(model(brain, packed), "file")
    assert {(t.name, t.dtype, t.shape) for t in found} == {
        ("b", "uint16", (32,)),
        ("p", "uint8", (64,)),
    }


def test_tensors_in_other_files() -> None:
    tensor = numpy_helper.from_array(np.zeros(99), "w")
    tensor.data_location = TensorProto.EXTERNAL
    with pytest.raises(ArtifactError, match="keeps the tensor 'w' in another file"):
        find_tensors(model(tensor), "file")


@given(st.binary(max_size=60))
def test_what_is_no_onnx_file(data: bytes) -> None:
    try:
        found = find_tensors(data, "file")
    except ArtifactError as error:
        assert "file is not an ONNX file" in str(error)  # noqa: PT017
    else:
        assert all(tensor.end <= len(data) for tensor in found)


@given(st.integers(0, 4000), st.integers(0, 255))
def test_a_changed_onnx_file(place: int, value: int) -> None:
    data = bytearray(model(numpy_helper.from_array(np.arange(200.0), "w")))
    data[place % len(data)] = value
    try:
        found = find_tensors(bytes(data), "file")
    except ArtifactError:
        return
    assert all(0 <= tensor.start <= tensor.end <= len(data) for tensor in found)
