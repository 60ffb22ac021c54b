"""Bytes against zlib and numpy; weights of an ONNX file written here."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper, save
from torch import nn

from lit_compress.measure import deflated_bytes, file_bytes, onnx_counts, state_bytes


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.binary(max_size=500))
def test_file_and_deflated_bytes(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(data)
    assert file_bytes(path) == file_bytes(str(path)) == len(data)
    assert deflated_bytes(path) == deflated_bytes(str(path)) == len(zlib.compress(data, 6))


def test_deflated_bytes_of_a_file_of_several_reads(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, 300_000, dtype=np.uint8).tobytes()
    data = noise + bytes(1_500_000) + noise[:1000] * 700
    path = tmp_path / "file"
    path.write_bytes(data)
    assert deflated_bytes(path) == pytest.approx(len(zlib.compress(data, 6)), rel=0.01)


@pytest.mark.parametrize("size", [file_bytes, deflated_bytes])
def test_a_missing_file_is_an_error(tmp_path: Path, size: Callable[[Path], int]) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        size(tmp_path / "nowhere")


def test_state_bytes() -> None:
    norm = nn.BatchNorm1d(6)  # 2 x 6 parameters, 2 x 6 float and 1 int64 buffer
    half = nn.Linear(6, 4, bias=False).half()
    assert state_bytes(nn.Sequential(norm, half)) == 4 * 24 + 8 + 2 * 24


def test_state_bytes_counts_a_tied_tensor_once() -> None:
    first, second = nn.Linear(5, 5, bias=False), nn.Linear(5, 5, bias=False)
    second.weight = first.weight
    assert state_bytes(nn.Sequential(first, second)) == 4 * 25
    second.weight = nn.Parameter(torch.zeros(5, 5))
    assert state_bytes(nn.Sequential(first, second)) == 4 * 50


def write_model(path: Path, nodes: list, arrays: dict[str, np.ndarray]) -> Path:
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in arrays.items()],
    )
    opset = [helper.make_opsetid("", 17)]
    save(helper.make_model(graph, opset_imports=opset, ir_version=10), path)
    return path


def test_scales_zero_points_and_shapes_are_no_weights(tmp_path: Path) -> None:
    weight = np.array([[1, 0, -3, 4], [0, 0, 5, 6], [7, 8, 9, 0]], np.int8)
    path = write_model(
        tmp_path / "m.onnx",
        [
            helper.make_node("QuantizeLinear", ["x", "x_scale", "x_zero"], ["xq"]),
            helper.make_node("DequantizeLinear", ["xq", "x_scale", "x_zero"], ["xd"]),
            helper.make_node("DequantizeLinear", ["w", "w_scale", "w_zero"], ["wd"], axis=1),
            helper.make_node("DequantizeLinear", ["b", "b_scale"], ["bd"], axis=0),
            helper.make_node("MatMul", ["xd", "wd"], ["p"]),
            helper.make_node("Add", ["p", "bd"], ["q"]),
            helper.make_node("Reshape", ["q", "shape"], ["y"]),
        ],
        {
            "x_scale": np.float32(0.1),
            "x_zero": np.int8(3),
            "w": weight,
            "w_scale": np.ones(4, np.float32),
            "w_zero": np.zeros(4, np.int8),
            "b": np.array([1, 0, 2, 3], np.int32),
            "b_scale": np.ones(4, np.float32),
            "shape": np.array([-1, 2, 2], np.int64),
        },
    )
    assert onnx_counts(path) == onnx_counts(str(path)) == (12 + 4, 8 + 3)


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.sampled_from([0.0, -0.0, 1.5, -2.0]), min_size=1, max_size=12))
def test_float_weights_are_counted_as_numpy_counts(tmp_path: Path, values: list[float]) -> None:
    weight = np.tile(np.array(values, np.float32), (3, 1))
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    path = write_model(tmp_path / "m.onnx", [node], {"w": weight, "unused": np.float32(3)})
    assert onnx_counts(path) == (weight.size, int((weight != 0).sum()))
