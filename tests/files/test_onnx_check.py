from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from lit_compress.artifact import OnnxModel
from lit_compress.errors import ArtifactError
from lit_compress.files.onnx_check import MOST, check_onnx


def model(nodes: list[onnx.NodeProto], **constants: np.ndarray) -> onnx.ModelProto:
    initializers = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "g", [given], [result], initializers)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    made.ir_version = 9
    return made


def sizes(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def node(operator: str, *inputs: str, **attributes: object) -> onnx.NodeProto:
    return helper.make_node(operator, list(inputs), ["y"], **attributes)


GIANTS = {
    "Expand": model([node("Expand", "x", "n")], n=sizes(1 << 20, 1 << 20, 4)),
    "Tile": model([node("Tile", "x", "n")], n=sizes(1 << 30, 1)),
    "ConstantOfShape": model([node("ConstantOfShape", "n")], n=sizes(1 << 15, 1 << 15)),
    "Range": model(
        [node("Range", "a", "b", "c")], a=sizes(0)[0], b=sizes(1 << 40)[0], c=sizes(1)[0]
    ),
    "Pad": model([node("Pad", "x", "n")], n=sizes(0, 0, 0, 1 << 40)),
    "RandomNormal": model([node("RandomNormal", shape=[1 << 20, 1 << 20])]),
}


@pytest.mark.parametrize("operator", GIANTS)
def test_a_giant_is_refused_before_a_session(tmp_path: Path, operator: str) -> None:
    content = GIANTS[operator].SerializeToString()
    with pytest.raises(ValueError, match=f"{operator} makes a tensor of [0-9,]+ elements"):
        check_onnx(content)
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(ArtifactError, match=r"m\.onnx cannot be read"):
        OnnxModel(tmp_path / "m.onnx")


def test_a_computed_size_is_traced_to_its_constants() -> None:
    made = model(
        [
            helper.make_node("Constant", [], ["one"], value_ints=[1]),
            helper.make_node("Concat", ["one", "n"], ["shape"], axis=0),
            node("Expand", "x", "shape"),
        ],
        n=sizes(MOST + 1),
    )
    with pytest.raises(ValueError, match="Expand makes"):
        check_onnx(made.SerializeToString())


def test_usual_sizes_pass() -> None:
    check_onnx(model([node("Expand", "x", "n")], n=sizes(3, 1, 4)).SerializeToString())
    check_onnx(model([node("Slice", "x", "n", "n")], n=sizes(2**63 - 1)).SerializeToString())


def control_flow() -> onnx.ModelProto:
    result = helper.make_tensor_value_info("z", TensorProto.FLOAT, None)
    branch = helper.make_graph([helper.make_node("Identity", ["x"], ["z"])], "b", [], [result])
    return model([node("If", "c", then_branch=branch, else_branch=branch)], c=np.array(True))


def elsewhere() -> onnx.ModelProto:
    made = model([node("Add", "x", "w")], w=np.zeros(4, np.float32))
    tensor = made.graph.initializer[0]
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")
    return made


def functions() -> onnx.ModelProto:
    made = model([node("Relu", "x")])
    made.functions.append(
        helper.make_function("own", "F", ["a"], ["b"], [node("Relu", "a")], made.opset_import)
    )
    return made


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (control_flow(), "control flow"),
        (elsewhere(), "in another file"),
        (functions(), "functions of its own"),
        (model([node("Relu", "x", domain="evil")]), "'Relu' of 'evil'"),
    ],
)
def test_what_this_package_never_writes(made: onnx.ModelProto, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_onnx(made.SerializeToString())


@pytest.mark.parametrize("content", [b"", b"none", b"\x08" * 20, bytes(range(256))])
def test_what_is_no_onnx_file(content: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # each has words of its own
        check_onnx(content)
