from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from onnx import parser, save

from lit_compress.artifact import (
    Card,
    Fidelity,
    OnnxModel,
    Variant,
    fastest,
    load,
    read_card,
    sha256,
    write_card,
    write_replay,
)
from lit_compress.artifact.fastest import Choice, choices, fastest_choice
from lit_compress.artifact.folder import choice
from lit_compress.errors import ArtifactError, InvalidArgumentError
from lit_compress.runtimes import FormatFile, Port, onnx, open_format
from lit_compress.timing.remembered import Remembered

NETWORK = """
    <ir_version: 10, opset_import: ["": 20]>
    scaled (float[batch, 2] x) => (float[batch, 2] y) <float s = {FACTOR}> { y = Mul(x, s) }
"""
INPUTS = np.float32([[1, 2], [3, 4]])
PORT = Port("x", (2,), "float32", True)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "lit_compress" / "fastest.json"


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    """An artefact with an int8 and a float network."""
    folder = tmp_path / "artifact"
    folder.mkdir()
    for name in ("model.onnx", "model-fp32.onnx"):
        save(parser.parse_model(NETWORK.replace("FACTOR", "2")), folder / name)
    write_replay(folder / "replay.npz", [INPUTS], INPUTS * 2)
    names = ("model.onnx", "model-fp32.onnx", "replay.npz")
    exact = Fidelity(200.0, 1.0, 2)
    variants = tuple(
        Variant(name, 1, 1, file=file, fidelity=exact)
        for name, file in (("pruned", "model-fp32.onnx"), ("int8", "model.onnx"))
    )
    write_card(folder, Card("run", variants, {}, files={n: sha256(folder / n) for n in names}))
    return folder


def card(**more: str) -> Card:
    file = FormatFile("litert", ("model-b1.tflite",), 1, (PORT,), (PORT,), 1)
    files = dict.fromkeys(("model.onnx", *more.values()), "0" * 64)
    return Card("run", (Variant("int8", 1, 1, formats=(file,)),), {}, files=files)


def test_every_file_in_every_runtime_is_a_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx, "is_installed", lambda name: True)
    monkeypatch.setattr(open_format, "is_installed", lambda name: True)
    found = choices(card(float="model-fp32.packed"))
    assert found == (
        Choice("onnxruntime"),
        Choice("openvino"),
        Choice("onnxruntime", "fp32"),
        Choice("openvino", "fp32"),
        Choice("litert"),  # the artefact has no file of ExecuTorch
    )


def test_the_float_network_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx, "is_installed", lambda name: True)
    found = choices(card(float="model-fp32.onnx"), "fp32")
    assert found == (Choice("onnxruntime", "fp32"), Choice("openvino", "fp32"))


class Slow:
    """A model that waits, and counts its calls and their batch sizes."""

    def __init__(self, model: OnnxModel, factor: int) -> None:
        self.inputs, self._model, self._factor = model.inputs, model, factor
        self.batches: set[int] = set()

    def all_outputs(self, *arrays: np.ndarray) -> list[np.ndarray]:
        self.batches.add(len(arrays[0]))
        for _ in range(self._factor):
            self._model.all_outputs(*arrays)
        return []


def test_the_fastest_is_found_and_remembered(
    artifact: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx, "is_installed", lambda name: name == "onnxruntime")
    monkeypatch.setattr(open_format, "is_installed", lambda name: False)
    model = OnnxModel(artifact / "model.onnx")
    opened: list[Slow] = []

    def opens(choice: Choice) -> tuple[Slow, None, None]:
        opened.append(Slow(model, 1 if choice.weights == "fp32" else 30))
        return opened[-1], None, None

    for batch in (3, 3, 1):  # the second time it is remembered
        found = fastest_choice(
            card(float="model-fp32.onnx"),
            choices(card(float="model-fp32.onnx")),
            [INPUTS],
            1,
            batch,
            opens,  # type: ignore[arg-type]
        )
        assert found == Choice("onnxruntime", "fp32")
    assert [slow.batches for slow in opened] == [{3}, {3}, {1}, {1}]
    assert len(json.loads(cache.read_text("utf-8"))) == 2


@pytest.mark.parametrize("content", ["no json", "[]", '{"key": 3}'])
def test_a_damaged_memory_is_measured_anew(artifact: Path, cache: Path, content: str) -> None:
    cache.parent.mkdir(parents=True)
    cache.write_text(content, encoding="utf-8")
    np.testing.assert_array_equal(load(artifact, runtime="fastest")(INPUTS), INPUTS * 2)
    assert isinstance(json.loads(cache.read_text("utf-8")), dict)


def test_a_home_that_cannot_be_written(
    artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    np.testing.assert_array_equal(load(artifact, runtime="fastest")(INPUTS), INPUTS * 2)


def test_only_the_last_choices_are_kept(
    artifact: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fastest, "REMEMBERED", Remembered("fastest", most=2))
    for batch in (1, 2, 3):
        load(artifact, runtime="fastest", batch=batch)
    assert len(json.loads(cache.read_text("utf-8"))) == 2


@pytest.mark.parametrize("batch", [0, -1, True, 1.5])
def test_a_batch_size_that_is_none(artifact: Path, batch: int) -> None:
    with pytest.raises(InvalidArgumentError, match="batch must be a whole number from 1"):
        load(artifact, runtime="fastest", batch=batch)


def test_a_file_whose_outputs_were_never_compared(
    artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a figure on the card, any outputs passed the check."""
    found = read_card(artifact)
    (artifact / "model-b1.tflite").write_bytes(b"a file")
    file = FormatFile("litert", ("model-b1.tflite",), 6, (PORT,), (PORT,), 1)
    variants = tuple(replace(v, formats=(file,) * (v.name == "int8")) for v in found.variants)
    files = {**found.files, "model-b1.tflite": sha256(artifact / "model-b1.tflite")}
    write_card(artifact, replace(found, variants=variants, files=files))
    engine = OnnxModel(artifact / "model.onnx")._engine
    monkeypatch.setattr(choice, "open_format", lambda *arguments: engine)
    with pytest.raises(ArtifactError, match=r"no fidelity for model-b1\.tflite"):
        load(artifact, runtime="litert")
    assert load(artifact, runtime="litert", check=False).runtime == "onnxruntime"
