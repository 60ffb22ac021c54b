from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest

from lit_compress.files.onnx_unshared import unshared


def test_the_network_is_the_same_and_shares_nothing(two_int8_layers: bytes) -> None:
    """ONNX Runtime failed to turn two weights with one zero point into uint8."""
    content = two_int8_layers
    changed = unshared(content)
    model = onnx.load_from_string(changed)
    onnx.checker.check_model(model, full_check=True)
    read = [
        name
        for node in model.graph.node
        if node.op_type == "DequantizeLinear"
        for name in node.input
        if any(name == tensor.name for tensor in model.graph.initializer)
    ]
    assert len(read) == len(set(read)) == 10
    image = np.random.default_rng(1).random((2, 4, 8, 8)).astype(np.float32)
    before, after = (
        onnxruntime.InferenceSession(one, providers=["CPUExecutionProvider"]).run(
            None, {"x": image}
        )
        for one in (content, changed)
    )
    np.testing.assert_array_equal(before[0], after[0])
    assert unshared(changed) == changed


def test_a_weight_of_two_layers_is_dequantised_for_each(two_int8_layers: bytes) -> None:
    """ONNX Runtime failed to turn a weight into uint8 that two layers read."""
    model = onnx.load_from_string(two_int8_layers)
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    convolutions[1].input[1] = convolutions[0].input[1]
    content = bytes(model.SerializeToString())
    changed = unshared(content)
    model = onnx.load_from_string(changed)
    onnx.checker.check_model(model, full_check=True)
    weights = [node.input[1] for node in model.graph.node if node.op_type == "Conv"]
    makers = {name: node for node in model.graph.node for name in node.output}
    assert len({*weights}) == len({makers[name].input[0] for name in weights}) == 2
    image = np.random.default_rng(1).random((2, 4, 8, 8)).astype(np.float32)
    before, after = (
        onnxruntime.InferenceSession(one, providers=["CPUExecutionProvider"]).run(
            None, {"x": image}
        )
        for one in (content, changed)
    )
    np.testing.assert_array_equal(before[0], after[0])
    assert unshared(changed) == changed


def test_what_is_no_file() -> None:
    with pytest.raises(ValueError, match="truncated"):
        unshared(b"\x3a\xff")
