import sys
from importlib.machinery import ModuleSpec
from io import BytesIO
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, save

from lit_compress.artifact import OnnxModel
from lit_compress.errors import ArtifactError, InvalidArgumentError
from lit_compress.runtimes.onnx import RUNTIMES, is_installed, open_engine


def write_sum(path: Path) -> Path:
    """A file of two inputs, one of which is not of the batch."""
    graph = helper.make_graph(
        [helper.make_node("Add", ["a", "b"], ["y"])],
        "g",
        [
            helper.make_tensor_value_info("a", TensorProto.FLOAT, ["batch", 3]),
            helper.make_tensor_value_info("b", TensorProto.FLOAT, [3]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3])],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    made.metadata_props.add(key="note", value="kept")
    save(made, path)
    return path


A, B = np.arange(6, dtype=np.float32).reshape(2, 3), np.ones(3, np.float32)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_every_runtime_shows_the_same_face(tmp_path: Path, runtime: str) -> None:
    if not is_installed(runtime):  # type: ignore[arg-type]
        pytest.skip(f"{runtime} is not installed")
    engine = open_engine(write_sum(tmp_path / "m.onnx"), runtime, 1)  # type: ignore[arg-type]
    assert [(i.name, i.shape, i.batched) for i in engine.inputs] == [
        ("a", (3,), True),
        ("b", (3,), False),
    ]
    assert engine.metadata == {"note": "kept"}
    np.testing.assert_array_equal(engine.run([A, B])[0], A + 1)


def test_several_inputs_in_order_by_name_or_in_a_mapping(tmp_path: Path) -> None:
    model = OnnxModel(write_sum(tmp_path / "m.onnx"))
    for found in (model(A, B), model(A, b=B), model(b=B, a=A), model({"a": A, "b": B})):
        np.testing.assert_array_equal(found, A + 1)
    for wrong in ((A,), (A, B, B), ({"a": A},)):
        with pytest.raises(InvalidArgumentError, match=r"takes 2 inputs \(a, b\)"):
            model(*wrong)
    with pytest.raises(InvalidArgumentError, match="takes float32 of shape 3, got float32"):
        model(A, A)


def test_a_file_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"none")
    with pytest.raises(ArtifactError, match="cannot be read"):
        open_engine(tmp_path / "m.onnx", "onnxruntime", 1)


class Openvino:
    """As much of OpenVINO as is used: its requests write all outputs into the same memory."""

    def __init__(self) -> None:
        self.options: dict[str, Any] = {}
        self.memory = np.zeros((2, 3), np.float32)

    def read_model(self, model: BytesIO) -> bytes:
        return model.getvalue()

    def compile_model(self, model: bytes, device: str, options: dict[str, Any]) -> Any:
        self.options = options
        return SimpleNamespace(create_infer_request=lambda: self, outputs=[None])

    def infer(self, arrays: list[np.ndarray]) -> list[np.ndarray]:
        self.memory[:] = sum(arrays)
        return [self.memory]


@pytest.fixture
def openvino(monkeypatch: pytest.MonkeyPatch) -> Openvino:
    stand_in = Openvino()
    module = ModuleType("openvino")
    module.__spec__ = ModuleSpec("openvino", None)
    module.Core = lambda: stand_in  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "openvino", module)
    return stand_in


def test_outputs_of_openvino_are_the_callers_own(tmp_path: Path, openvino: Openvino) -> None:
    """The next call would write into them; this is tried where OpenVINO is not installed too."""
    engine = open_engine(write_sum(tmp_path / "m.onnx"), "openvino", 2)
    (first,), (second,) = engine.run([A, B]), engine.run([A, A])
    np.testing.assert_array_equal(first, A + 1)
    np.testing.assert_array_equal(second, A + A)
    assert openvino.options["INFERENCE_NUM_THREADS"] == "2"
    assert openvino.options["INFERENCE_PRECISION_HINT"] == "f32"
    open_engine(tmp_path / "m.onnx", "openvino", 0)
    assert "INFERENCE_NUM_THREADS" not in openvino.options
