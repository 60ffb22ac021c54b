"""Each change of form leaves the outputs of the graph as they were."""

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from lit_compress.export import onnx_rewrites

RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.normal(size=(3, 4, 6, 5)).astype(np.float32)
QDQ = (("QuantizeLinear", "x", "q"), ("DequantizeLinear", "q", "d"))


def model(nodes: list, shape: list, **constants: np.ndarray) -> ModelProto:
    constants |= {"s": np.float32(0.03), "z": np.uint8(128)}
    pair = [helper.make_node(kind, [a, "s", "z"], [b]) for kind, a, b in QDQ]
    graph = helper.make_graph(
        [*pair, *nodes],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", *IMAGES.shape[1:]])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", *shape])],
        [numpy_helper.from_array(np.asarray(v), name) for name, v in constants.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return onnx.shape_inference.infer_shapes(made)  # as the exporter writes them


def run(made: ModelProto, level: int = 99) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel(level)
    options.log_severity_level = 3
    onnx.checker.check_model(made)
    session = onnxruntime.InferenceSession(
        made.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    outputs: np.ndarray = session.run(None, {"x": IMAGES})[0]
    return outputs


def kinds(made: ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in made.graph.node)


@pytest.mark.parametrize("keepdims", [0, 1])
@pytest.mark.parametrize("axes", [[2, 3], [-1, -2]])
def test_means_over_the_image_become_global_pools(keepdims: int, axes: list[int]) -> None:
    mean = helper.make_node("ReduceMean", ["d", "axes"], ["y"], keepdims=keepdims)
    made = model([mean], [4, 1, 1] if keepdims else [4], axes=np.array(axes))
    expected = run(made)
    onnx_rewrites.pool_globally(made)
    assert kinds(made)["GlobalAveragePool"] == 1
    assert kinds(made)["ReduceMean"] == 0
    np.testing.assert_allclose(run(made), expected, atol=1e-6)


def test_other_means_stay() -> None:
    mean = helper.make_node("ReduceMean", ["d", "axes"], ["y"], keepdims=1)
    made = model([mean], [1, 6, 5], axes=np.array([1]))
    onnx_rewrites.pool_globally(made)
    assert kinds(made)["ReduceMean"] == 1


def test_a_float_weight_between_pairs_stays_float() -> None:
    weight = RANDOM.normal(size=(2, 4, 3, 3)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["d", "w"], ["c"]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("QuantizeLinear", ["r", "s", "zero"], ["e"]),
        helper.make_node("DequantizeLinear", ["e", "s", "zero"], ["y"]),
    ]
    made = model(nodes, [2, 4, 3], w=weight, zero=np.uint8(0))
    plain, requantised = run(made, 0), run(made)
    assert np.abs(plain - requantised).max() > 0.01  # what ONNX Runtime does of itself
    onnx_rewrites.keep_floats(made)
    np.testing.assert_allclose(run(made), plain, atol=0.031)
    assert (run(made) == plain).mean() > 0.95
    np.testing.assert_allclose(run(made, 0), plain, atol=1e-6)


def test_float_networks_are_left_alone() -> None:
    weight = RANDOM.normal(size=(2, 4, 3, 3)).astype(np.float32)
    made = model([helper.make_node("Conv", ["x", "w"], ["y"])], [2, 4, 3], w=weight)
    onnx_rewrites.keep_floats(made)
    onnx_rewrites.pool_globally(made)
    onnx_rewrites.quantize_last_biases(made)
    assert kinds(made)["LeakyRelu"] == 0


def test_the_last_bias_is_quantised() -> None:
    nodes = [
        helper.make_node("Flatten", ["q"], ["f"]),
        helper.make_node("DequantizeLinear", ["f", "s", "z"], ["a"]),
        helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["b"], axis=0),
        helper.make_node("Gemm", ["a", "b", "bias"], ["y"], transB=1),
    ]
    made = model(
        nodes,
        [7],
        # Without VNNI the sums of two products of larger weights overflow in the integer kernel.
        w=RANDOM.integers(-64, 65, (7, 120), dtype=np.int8),
        ws=RANDOM.uniform(1e-3, 2e-3, 7).astype(np.float32),
        wz=np.zeros(7, np.int8),
        bias=RANDOM.normal(size=7).astype(np.float32),
    )
    expected = run(made)
    onnx_rewrites.quantize_last_biases(made)
    stored = {i.name: numpy_helper.to_array(i) for i in made.graph.initializer}
    assert stored["bias.int32"].dtype == np.int32
    assert "bias" not in stored
    np.testing.assert_allclose(run(made), expected, atol=1e-3)


def test_inputs_that_nothing_takes_are_dropped(tmp_path: Path) -> None:
    made = model([helper.make_node("Relu", ["d"], ["y"])], [4, 6, 5])
    made.graph.input.append(helper.make_tensor_value_info("label", TensorProto.INT64, ["n"]))
    onnx_rewrites.drop_unused_inputs(made)
    assert [value.name for value in made.graph.input] == ["x"]


def test_a_bias_of_more_steps_than_int32_has_stays_float() -> None:
    """Its int32 would be some other number."""
    nodes = [
        helper.make_node("Flatten", ["q"], ["f"]),
        helper.make_node("DequantizeLinear", ["f", "s", "z"], ["a"]),
        helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["b"], axis=0),
        helper.make_node("Gemm", ["a", "b", "bias"], ["y"], transB=1),
    ]
    made = model(
        nodes,
        [1],
        w=RANDOM.integers(-127, 128, (1, 120), dtype=np.int8),
        ws=np.full(1, 1e-3, np.float32),
        wz=np.zeros(1, np.int8),
        bias=np.full(1, 0.03 * 1e-3 * 2**31, np.float32),
    )
    onnx_rewrites.quantize_last_biases(made)
    assert {"bias"} == {i.name for i in made.graph.initializer if i.name.startswith("bias")}
