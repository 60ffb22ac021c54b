"""The share of int8 weights, against files made by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from lit_compress.measure import int8_share


def write(path: Path, **tensors: np.ndarray) -> Path:
    nodes = [
        helper.make_node("DequantizeLinear", ["w8", "scale", "zero"], ["w"]),
        helper.make_node("Identity", ["w"], ["y"]),
    ]
    weights = [numpy_helper.from_array(value, name) for name, value in tensors.items()]
    output = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "net", [], [output], weights)
    onnx.save(helper.make_model(graph), path)
    return path


def test_biases_scales_and_shapes_are_no_weights(tmp_path: Path) -> None:
    path = write(
        tmp_path / "m.onnx",
        w8=np.ones((3, 4), np.int8),
        scale=np.ones((3, 1), np.float32),
        zero=np.zeros((3, 1), np.int8),
        table=np.ones((2, 2), np.float32),
        bias=np.ones(99, np.float32),
        shape=np.ones((9, 9), np.int64),
        mask=np.ones((9, 9), np.bool_),
    )
    assert int8_share(path) == pytest.approx(12 / 16)


def test_a_file_without_weights_has_no_share(tmp_path: Path) -> None:
    assert int8_share(write(tmp_path / "m.onnx", bias=np.ones(3, np.float32))) is None
