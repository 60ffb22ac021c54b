"""A network is the file of its name, or a packed one in its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from artifact.conftest import write_artifact
from lit_compress.artifact import Card, load
from lit_compress.artifact.folder.names import model_file, packed_name
from lit_compress.errors import ArtifactError, InvalidArgumentError


def test_no_model(artifact: Path) -> None:
    write_artifact(artifact, "float.safetensors")
    with pytest.raises(ArtifactError, match=r"has no model\.onnx: only a run with quantisation"):
        load(artifact)


@pytest.mark.parametrize(
    ("files", "weights", "name"),
    [
        (["model.onnx"], "int8", "model.onnx"),
        (["model.onnx", "model.packed"], "int8", "model.onnx"),
        (["model.packed"], "int8", "model.packed"),
        (["model-fp32.packed", "model.onnx"], "fp32", "model-fp32.packed"),
    ],
)
def test_the_file_of_a_network(files: list[str], weights: str, name: str) -> None:
    card = Card("run", (), {}, files=dict.fromkeys(files, "0" * 64))
    assert model_file("folder", card, weights) == name


def test_a_network_that_an_artefact_lacks() -> None:
    card = Card("run", (), {}, files={"model.onnx": "0" * 64})
    with pytest.raises(ArtifactError, match=r"has no model-fp32\.onnx: .* CompressionReport"):
        model_file("folder", card, "fp32")
    with pytest.raises(InvalidArgumentError, match="weights must be 'int8' or 'fp32', got 'int4'"):
        model_file("folder", card, "int4")


def test_the_packed_name_has_another_end() -> None:
    assert packed_name("model-fp32.onnx") == "model-fp32.packed"
