"""Weights of 4 bits in an int8 ONNX file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from lit_compress.packed.four_bits import round_onnx
from lit_compress.packed.model import unpack

FILE = Path(__file__).parents[2] / "examples/digits_int8/model.onnx"


def weights(data: bytes) -> dict[str, np.ndarray]:
    graph = onnx.load_model_from_string(data).graph
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}


def test_a_network() -> None:
    data = FILE.read_bytes()
    rounded = round_onnx(data)
    assert unpack(rounded.packed) == rounded.onnx
    assert len(rounded.packed) < 0.6 * len(data)
    before, after = weights(data), weights(rounded.onnx)
    changed = {name for name in before if not np.array_equal(before[name], after[name])}
    assert sum(before[name].size for name in changed) <= rounded.weights
    zeroed = 0
    for name in changed:
        one, other = before[name], after[name]
        assert one.dtype == np.int8
        assert one[0].size >= 16
        assert not other[one == 0].any()
        assert max(len(np.unique(row)) for row in other) <= 16
        assert (
            np.square(one - other.astype(float)).sum() < 0.02 * np.square(one.astype(float)).sum()
        )
        zeroed += np.count_nonzero(one) - np.count_nonzero(other)
    assert zeroed == rounded.zeroed


def linear(
    operation: str, shape: tuple[int, ...], scales: int, point: int = 0, **more: int
) -> bytes:
    random = np.random.default_rng(0)
    weight = random.integers(-127, 128, shape).astype(np.int8)
    scale = np.full(scales, 0.1, np.float32) if scales > 1 else np.array(0.1, np.float32)
    dequantize = {"axis": more.pop("axis")} if "axis" in more else {}
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "s", "z"], ["d"], **dequantize),
        helper.make_node(operation, ["x", "d"], ["y"], **more),
    ]
    tensors = [
        numpy_helper.from_array(weight, "w"),
        numpy_helper.from_array(scale, "s"),
        numpy_helper.from_array(np.full(scale.shape, point, np.int8), "z"),
    ]
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in "xy"]
    graph = helper.make_graph(nodes, "net", values[:1], values[1:], tensors)
    return helper.make_model(graph).SerializeToString()


@pytest.mark.parametrize(
    ("data", "axis"),
    [
        (linear("Conv", (4, 20, 3, 3), 4, axis=0), 0),
        (linear("Conv", (4, 20, 3, 3), 1), 0),
        (linear("ConvTranspose", (20, 4, 3, 3), 1), 1),
        (linear("ConvTranspose", (20, 4, 3, 3), 4), 1),
        (linear("MatMul", (90, 5), 1), 1),
        (linear("MatMul", (90, 5), 5, axis=-1), 1),
        (linear("Gemm", (5, 90), 1, transB=1), 0),
        (linear("Gemm", (90, 5), 1), 1),
    ],
)
def test_each_output_channel_has_16_levels(data: bytes, axis: int) -> None:
    rounded = round_onnx(data)
    weight = np.moveaxis(weights(rounded.onnx)["w"], axis, 0)
    assert max(len(np.unique(row)) for row in weight) <= 16
    assert rounded.weights == weight.size
    assert unpack(rounded.packed) == rounded.onnx


@pytest.mark.parametrize(
    "data",
    [
        linear("Conv", (64, 1, 3, 3), 64, axis=0),  # 9 weights a channel
        linear("Add", (30, 40), 1),
        linear("MatMul", (90, 5), 1, point=3),
    ],
)
def test_what_stays(data: bytes) -> None:
    rounded = round_onnx(data)
    assert rounded.onnx == unpack(rounded.packed) == data
    assert (rounded.weights, rounded.zeroed) == (0, 0)
