"""Small files compute the same: names, shapes and equal tensors are no part of the computation."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from lit_compress.export.onnx_lean import (
    _short_names,
    drop_defaults,
    share_initializers,
    shorten_names,
)

GOLDEN = Path(__file__).parent.parent / "golden" / "files" / "artefact" / "model.onnx"


def outputs(model: onnx.ModelProto, *inputs: np.ndarray) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(model.SerializeToString())
    names = [value.name for value in session.get_inputs()]
    return session.run(None, dict(zip(names, inputs, strict=True)))


def test_an_int8_file_gives_the_same_bits_and_is_smaller() -> None:
    model = onnx.load(GOLDEN)
    size, images = model.ByteSize(), np.random.default_rng(0).normal(size=(8, 1, 8, 8))
    expected = outputs(model, images.astype(np.float32))
    drop_defaults(model)
    share_initializers(model)
    shorten_names(model)
    onnx.checker.check_model(model, full_check=True)
    assert [value.name for value in (*model.graph.input, *model.graph.output)] == [
        "input",
        "output",
    ]
    assert model.ByteSize() < 0.7 * size
    for one, other in zip(outputs(model, images.astype(np.float32)), expected, strict=True):
        np.testing.assert_array_equal(one, other)


def branching() -> onnx.ModelProto:
    """A graph whose branches read its values and have values of the same names."""
    branches = [
        helper.make_graph(
            [helper.make_node(operation, ["hidden", "one"], ["a"], name="n")],
            operation,
            [],
            [helper.make_tensor_value_info("a", TensorProto.FLOAT, [2])],
            [numpy_helper.from_array(np.array([value, 1], np.float32), "one")],
        )
        for operation, value in (("Add", 3), ("Mul", 5))
    ]
    nodes = [
        helper.make_node("Add", ["b", "shift"], ["hidden"]),
        helper.make_node(
            "If", ["positive"], ["c"], then_branch=branches[0], else_branch=branches[1]
        ),
        helper.make_node("Add", ["c", "same"], ["output"]),
    ]
    graph = helper.make_graph(
        nodes,
        "graph",
        [
            helper.make_tensor_value_info("positive", TensorProto.BOOL, []),
            helper.make_tensor_value_info("b", TensorProto.FLOAT, [2]),
        ],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [2])],
        [numpy_helper.from_array(np.ones(2, np.float32), name) for name in ("shift", "same")],
    )
    opset = [helper.make_opsetid("", 18)]
    return helper.make_model(graph, opset_imports=opset, ir_version=10)


def test_branches_keep_what_they_read() -> None:
    model, values = branching(), np.array([1, 2], np.float32)
    expected = [outputs(model, np.array(kind), values)[0] for kind in (True, False)]
    assert expected[0].tolist() != expected[1].tolist()
    share_initializers(model)
    shorten_names(model)
    assert len(model.graph.initializer) == 1
    assert [value.name for value in model.graph.input] == ["positive", "b"]
    found = [outputs(model, np.array(kind), values)[0] for kind in (True, False)]
    np.testing.assert_array_equal(found, expected)


def test_tensors_of_another_type_or_shape_are_not_shared() -> None:
    arrays = [np.zeros(4, np.float32), np.zeros((2, 2), np.float32), np.zeros(4, np.int32)]
    tensors = [
        numpy_helper.from_array(array, f"t{i}") for i, array in enumerate([*arrays, *arrays])
    ]
    model = helper.make_model(helper.make_graph([], "graph", [], [], tensors))
    share_initializers(model)
    assert [item.name for item in model.graph.initializer] == ["t0", "t1", "t2"]


@given(st.integers(0, 5000))
def test_short_names_differ(count: int) -> None:
    names = list(islice(_short_names(), count))
    assert len(set(names)) == count
    assert all(name[0].isalpha() and name.isalnum() for name in names)
    assert max(map(len, names), default=0) <= 3


def windows(operator: str, **attributes: object) -> onnx.ModelProto:
    inputs = ["x", "w"] if operator == "Conv" else ["x"]
    weight = np.random.default_rng(0).normal(size=(2, 2, 3, 3)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node(operator, inputs, ["y"], kernel_shape=[3, 3], **attributes)],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(weight, "w")] if operator == "Conv" else [],
    )
    opset = [helper.make_opsetid("", 20)]
    return helper.make_model(graph, opset_imports=opset, ir_version=10)


@given(
    st.sampled_from(["Conv", "MaxPool"]),
    st.lists(st.integers(1, 2), min_size=2, max_size=2),
    st.lists(st.integers(1, 2), min_size=2, max_size=2),
    st.lists(st.integers(0, 1), min_size=4, max_size=4),
)
def test_attributes_that_say_nothing_are_left_out(
    operator: str, strides: list[int], dilations: list[int], pads: list[int]
) -> None:
    """They were a fortieth of a file of 400,000 weights."""
    model = windows(operator, strides=strides, dilations=dilations, pads=pads)
    x = np.random.default_rng(1).normal(size=(1, 2, 8, 8)).astype(np.float32)
    expected = outputs(model, x)
    drop_defaults(model)
    np.testing.assert_array_equal(outputs(model, x)[0], expected[0])
    left = {attribute.name for attribute in model.graph.node[0].attribute}
    assert left == {
        "kernel_shape",
        *(["strides"] if strides != [1, 1] else []),
        *(["dilations"] if dilations != [1, 1] else []),
        *(["pads"] if any(pads) else []),
    }


def test_an_axis_that_is_not_the_default_stays() -> None:
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], axis=1),
        helper.make_node("DequantizeLinear", ["w", "scales"], ["d"], axis=0),
        helper.make_node("Own", ["d"], ["e"], domain="own", axis=1),
    ]
    model = helper.make_model(helper.make_graph(nodes, "g", [], []))
    drop_defaults(model)
    assert [[a.name for a in node.attribute] for node in model.graph.node] == [
        [],
        ["axis"],
        ["axis"],
    ]
