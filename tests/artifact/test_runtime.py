"""A file run as numpy says it should, and inputs that it refuses in words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper, save

from lit_compress.artifact import Card, OnnxModel
from lit_compress.errors import ArtifactError, InvalidArgumentError

WEIGHT = np.random.default_rng(0).normal(size=(2, 1, 3, 3)).astype(np.float32)


def write_model(path: Path, kind: int = TensorProto.UINT8) -> Path:
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["pixels"], ["x"], to=TensorProto.FLOAT),
            helper.make_node("Conv", ["x", "w"], ["y"]),
        ],
        "net",
        [helper.make_tensor_value_info("pixels", kind, ["batch", 1, 5, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 2, 3, 2])],
        [numpy_helper.from_array(WEIGHT, "w")],
    )
    opset = [helper.make_opsetid("", 17)]
    save(helper.make_model(graph, opset_imports=opset, ir_version=10), path)
    return path


def convolved(pixels: np.ndarray) -> np.ndarray:
    out = np.zeros((len(pixels), 2, 3, 2))
    for i in range(3):
        for j in range(2):
            window = pixels[:, :, i : i + 3, j : j + 3].astype(float)
            out[:, :, i, j] = np.tensordot(window, WEIGHT, ((1, 2, 3), (1, 2, 3)))
    return out


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> OnnxModel:
    return OnnxModel(write_model(tmp_path_factory.mktemp("model") / "m.onnx"))


def test_attributes(model: OnnxModel, tmp_path: Path) -> None:
    assert model.input_shape == (1, 5, 4)
    assert model.input_dtype == np.uint8
    assert model.card is None
    card = Card("r", (), {})
    assert OnnxModel(str(write_model(tmp_path / "m.onnx")), 2, card).card is card


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 9))
def test_outputs_for_any_batch(model: OnnxModel, seed: int, batch: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (batch, 1, 5, 4), dtype=np.uint8)
    np.testing.assert_allclose(model(pixels), convolved(pixels), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [(TensorProto.FLOAT, "float32"), (TensorProto.DOUBLE, "float64"), (TensorProto.UINT8, "uint8")],
)
def test_types_of_input(tmp_path: Path, kind: int, dtype: str) -> None:
    model = OnnxModel(write_model(tmp_path / "m.onnx", kind))
    assert model.input_dtype == np.dtype(dtype)
    pixels = np.arange(40).reshape(2, 1, 5, 4).astype(dtype)
    np.testing.assert_allclose(model(pixels), convolved(pixels), rtol=1e-4, atol=1e-3)
    other = "float32" if dtype != "float32" else "float64"
    with pytest.raises(InvalidArgumentError, match=f"this model takes {dtype} .*, got {other}"):
        model(pixels.astype(other))


def test_tensors_lists_and_views_are_taken(model: OnnxModel) -> None:
    pixels = np.arange(60, dtype=np.uint8).reshape(3, 1, 5, 4)
    expected = convolved(pixels)
    turned = np.ascontiguousarray(pixels.transpose(3, 2, 1, 0)).transpose(3, 2, 1, 0)
    for given_ in (torch.from_numpy(pixels), list(pixels), turned):
        np.testing.assert_allclose(model(given_), expected, rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(model(pixels[::-1]), expected[::-1], rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("shape", [(1, 5, 4), (2, 1, 4, 5), (2, 3, 5, 4), (2, 20), (), (40,)])
def test_another_shape_is_refused(model: OnnxModel, shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidArgumentError, match="uint8 of shape batch x 1 x 5 x 4, got uint8"):
        model(np.zeros(shape, np.uint8))


@pytest.mark.parametrize("threads", [-1, 1.0, True, None, "2"])
def test_threads_that_cannot_be(tmp_path: Path, threads: Any) -> None:
    path = write_model(tmp_path / "m.onnx")
    with pytest.raises(InvalidArgumentError, match="threads must be a whole number from 0, got"):
        OnnxModel(path, threads)


def test_files_that_cannot_be_loaded(tmp_path: Path) -> None:
    data = write_model(tmp_path / "m.onnx").read_bytes()
    (tmp_path / "cut.onnx").write_bytes(data[: len(data) // 2])
    (tmp_path / "empty.onnx").write_bytes(b"")
    for name in ("missing", "cut", "empty"):
        with pytest.raises(ArtifactError, match=f"{name}.onnx cannot be read"):
            OnnxModel(tmp_path / f"{name}.onnx")


def test_an_input_type_that_is_not_known(tmp_path: Path) -> None:
    path = write_model(tmp_path / "m.onnx", TensorProto.BFLOAT16)
    with pytest.raises(ArtifactError, match=r"has the type tensor\(bfloat16\), which is not"):
        OnnxModel(path)


@pytest.mark.parametrize("name", ["bool", "uint8", "uint16", "int8", "int16", "int64", "float16"])
def test_masks_and_samples_are_inputs(tmp_path: Path, name: str) -> None:
    """A padding mask ended in an error after all of the training; so did raw audio in int16."""
    element = getattr(TensorProto, name.upper())
    model = OnnxModel(write_model(tmp_path / "m.onnx", element))
    assert str(model.input_dtype) == name
    values = (np.arange(20).reshape(1, 1, 5, 4) % 3 > 0).astype(name)
    np.testing.assert_allclose(model(values), convolved(values), rtol=1e-5, atol=1e-5)
