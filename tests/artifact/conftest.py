"""A small artefact, whose network multiplies by a matrix."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper, save

from lit_compress.artifact import Card, Fidelity, Variant, sha256, write_card, write_replay

WEIGHT = np.arange(12, dtype=np.float32).reshape(3, 4) - 5
FILES = ("model.onnx", "float.safetensors", "replay.npz")
INPUTS = np.array([[1, 2, 3], [-1, 0, 0.5]], np.float32)


def write_model(path: Path, weight: np.ndarray = WEIGHT) -> None:
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4])],
        [numpy_helper.from_array(weight, "w")],
    )
    opset = [helper.make_opsetid("", 17)]
    save(helper.make_model(graph, opset_imports=opset, ir_version=10), path)


def write_artifact(folder: Path, *names: str) -> Card:
    files = {name: sha256(folder / name) for name in names}
    fidelity = Fidelity(40.0, 1.0, 2, 40.0)
    int8 = Variant("int8", 12, 11, file="model.onnx", fidelity=fidelity)
    card = Card("run", (int8,), {"torch": "2.14"}, files=files)
    write_card(folder, card)
    return card


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    folder = tmp_path / "artifact"
    folder.mkdir()
    write_model(folder / "model.onnx")
    (folder / "float.safetensors").write_bytes(b"weights")
    noise = np.random.default_rng(0).normal(size=(2, 4)) * 0.05
    write_replay(folder / "replay.npz", [INPUTS], (INPUTS @ WEIGHT + noise).astype(np.float32))
    write_artifact(folder, *FILES)
    return folder
