"""ONNX files and arrays come back, byte for byte."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnx import TensorProto, helper, numpy_helper

from lit_compress.artifact import OnnxModel
from lit_compress.errors import ArtifactError, InvalidArgumentError
from lit_compress.packed import model
from lit_compress.packed.layout import parse
from lit_compress.packed.model import (
    onnx_content,
    pack_arrays,
    pack_onnx,
    read_arrays,
    to_arrays,
    unpack,
)
from lit_compress.packed.tensor import DTYPES

ARRAYS = st.sampled_from(sorted(DTYPES)).flatmap(
    lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0))
)


@settings(max_examples=200)
@given(st.dictionaries(st.text(max_size=5), ARRAYS, max_size=4), st.floats(0, 1))
def test_arrays_come_back(arrays: dict[str, np.ndarray], zeros: float) -> None:
    for array in arrays.values():
        array[np.random.default_rng(0).random(array.shape) < zeros] = 0
    found = to_arrays(pack_arrays(arrays))
    assert list(found) == list(arrays)
    for name, array in arrays.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
        assert found[name].tobytes() == array.tobytes()


@pytest.mark.parametrize("size", [3, 3000, 300_000])
def test_zeros_with_a_sign_and_nan_come_back(size: int) -> None:
    array = np.zeros(size, np.float32)
    array[::3] = -0.0
    array[1::50] = np.uint32(0x7FC12345).view(np.float32)
    assert to_arrays(pack_arrays({"w": array}))["w"].tobytes() == array.tobytes()


@pytest.mark.parametrize("value", [0, 7])
def test_all_alike(value: int) -> None:
    packed = pack_arrays({"w": np.full((300, 1000), value, np.int8)})
    assert (to_arrays(packed)["w"] == value).all()
    assert len(packed) < 600


def test_the_order_of_bytes_and_of_dimensions() -> None:
    big = np.arange(12, dtype=">i4").reshape(3, 4).T
    found = to_arrays(pack_arrays({"w": big}))["w"]
    np.testing.assert_array_equal(found, big)


def test_arrays_of_objects() -> None:
    with pytest.raises(InvalidArgumentError, match="w has the type object"):
        pack_arrays({"w": np.array([None])})


def test_read_arrays(tmp_path: Path) -> None:
    path = tmp_path / "weights.packed"
    path.write_bytes(pack_arrays({"w": np.eye(3)}))
    np.testing.assert_array_equal(read_arrays(path)["w"], np.eye(3))


def onnx_file(weight: np.ndarray) -> bytes:
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", len(weight)])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", weight.shape[1]])],
        [numpy_helper.from_array(weight, "w")],
    )
    opset = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opset, ir_version=10).SerializeToString()


@given(hnp.arrays(np.float32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=20)))
def test_an_onnx_file_comes_back(weight: np.ndarray) -> None:
    data = onnx_file(weight)
    assert unpack(pack_onnx(data)) == data


def test_a_packed_onnx_file_runs(tmp_path: Path) -> None:
    weight = np.where(np.arange(1200).reshape(30, 40) % 9, 0, 1.5).astype(np.float32)
    path = tmp_path / "model.packed"
    path.write_bytes(pack_onnx(onnx_file(weight)))
    inputs = np.random.default_rng(0).normal(size=(3, 30)).astype(np.float32)
    np.testing.assert_allclose(OnnxModel(path)(inputs), inputs @ weight, rtol=1e-5)
    np.testing.assert_array_equal(read_arrays(path)["w"], weight)


def test_what_is_opened() -> None:
    data = onnx_file(np.eye(9, dtype=np.float32))
    assert onnx_content(data, "a.onnx") == data
    assert onnx_content(pack_onnx(data), "b.packed") == data
    assert onnx_content(b"", "c.onnx") == b""


def test_a_file_that_is_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "LIMIT", 100)
    with pytest.raises(ArtifactError, match="the arrays is larger than 2 GiB"):
        pack_arrays({"w": np.zeros(101, np.int8)})


def golden_arrays() -> dict[str, np.ndarray]:
    """Return the arrays of version_1.packed."""
    numbers = np.arange(4000)
    mixed = b"".join(sha256(bytes([number])).digest() for number in range(125))
    random = np.frombuffer(mixed, np.uint8)
    return {
        "dense": (numbers[:300] * 7 % 100 + 1).astype(np.int32).reshape(3, 100),
        "mask": np.where(random < 128, 0, random * np.uint16(257)),
        "gaps": np.where(numbers * 37 % 1009 < 990, 0, numbers).astype(np.float32),
        "four": (numbers[:400].reshape(4, 100) % 15 - 7).astype(np.int8) * 2,
        "scalar": np.array(1.5),
    }


def test_a_file_of_version_1_is_read_for_ever() -> None:
    """It was written by the first version that packed; the arrays are those of the function."""
    data = (Path(__file__).parent / "version_1.packed").read_bytes()
    content = unpack(data)
    assert sha256(content).digest() == data[28:60]
    assert content[:4] + content[-4:] == b"headtail"
    found, expected = to_arrays(data), golden_arrays()
    assert list(found) == list(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array)
    assert {block.encoding for block in parse(data, "file").blocks} == {"dense", "mask", "gaps"}
