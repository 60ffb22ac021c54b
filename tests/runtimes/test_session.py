from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest

from lit_compress.runtimes import session


@pytest.fixture(params=[True, False], ids=["without VNNI", "with VNNI"])
def lacking(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether the processor is taken for one without VNNI."""
    monkeypatch.setattr(session, "lacks_vnni", lambda: request.param)
    return bool(request.param)


def in_float(content: bytes, image: np.ndarray) -> np.ndarray:
    """What the file computes in float, without int8 kernels."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    opened = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    found: np.ndarray = opened.run(None, {"x": image})[0]
    return found


def test_sums_do_not_overflow_where_two_products_are_added_in_16_bits(
    two_int8_layers: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On such processors a network lost 0.8 points of accuracy, and its own check refused it."""
    monkeypatch.setattr(session, "lacks_vnni", lambda: True)
    opened = session.open_session(two_int8_layers, threads=1)
    set_so = opened.get_session_options()
    assert set_so.get_session_config_entry("session.x64quantprecision") == "1"
    image = np.full((1, 4, 8, 8), 5.0, np.float32)  # the largest values, so that sums overflow
    found = opened.run(None, {"x": image})[0]
    np.testing.assert_allclose(found, in_float(two_int8_layers, image), atol=1e-3)


def test_two_layers_with_one_weight_can_be_opened(two_int8_layers: bytes, lacking: bool) -> None:
    """ONNX Runtime cannot turn a weight into uint8 twice."""
    model = onnx.load_from_string(two_int8_layers)
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    convolutions[1].input[1] = convolutions[0].input[1]
    content = model.SerializeToString()
    opened = session.open_session(content, threads=1)
    image = np.random.default_rng(0).random((1, 4, 8, 8)).astype(np.float32) / 8
    found = opened.run(None, {"x": image})[0]
    np.testing.assert_allclose(found, in_float(content, image), atol=0.05)


def test_a_float_network_is_opened_as_it_is(lacking: bool) -> None:
    node = onnx.helper.make_node("Relu", ["x"], ["y"])
    value = [onnx.helper.make_tensor_value_info(name, 1, [2]) for name in "xy"]
    graph = onnx.helper.make_graph([node], "relu", value[:1], value[1:])
    opsets = [onnx.helper.make_opsetid("", 20)]
    model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10)
    opened = session.open_session(model.SerializeToString(), threads=1)
    found = opened.run(None, {"x": np.float32([-1, 2])})[0]
    assert found.tolist() == [0, 2]
