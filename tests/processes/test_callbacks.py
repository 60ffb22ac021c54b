"""Each callback in several processes: all end alike, and each image is measured once."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import stripes

from lit_compress import callbacks, load
from lit_compress.artifact import read_card

from .started import EXAMPLES, HERE, finished, left_by, nodes

pytestmark = pytest.mark.slow
PROGRAM = HERE / "fit_program.py"
#: Callbacks that write an artefact.
WRITING = (
    "Compress",
    "CompressionReport",
    "PostTrainingQuantization",
    "QuantizationAwareTraining",
)


def check_artifact(folder: Path) -> None:
    """Check the card of an artefact against all validation images, counted by hand."""
    card, data = read_card(folder), stripes(EXAMPLES, 1)
    images, labels = data.tensors
    for variant in card.variants:
        if variant.metric is not None:
            assert variant.metric.n == EXAMPLES
    if "model.onnx" in card.files:
        model = load(folder)
        hits = torch.from_numpy(model(images.numpy())).argmax(1) == labels
        metric = card.variant("int8").metric
        assert metric is not None
        assert metric.value == pytest.approx(float(hits.float().mean()), abs=1e-6)


@pytest.mark.parametrize("kind", [*callbacks.__all__, "together"])
def test_two_processes_end_alike(kind: str, tmp_path: Path) -> None:
    output = finished([PROGRAM, tmp_path, kind, 2])
    first, second = left_by(tmp_path, 2)
    assert first == second
    assert "runs in the first process alone" not in output
    found = list(tmp_path.rglob("card.json"))
    assert len(found) == (kind in WRITING or kind == "together")
    if found:
        check_artifact(found[0].parent)


def test_four_processes_end_alike(tmp_path: Path) -> None:
    finished([PROGRAM, tmp_path, "together", 4])
    first, *others = left_by(tmp_path, 4)
    assert others == [first] * 3
    check_artifact(tmp_path / "artifact")


def test_two_nodes_of_two_processes_end_as_four_of_one(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for folder in (one, two):
        folder.mkdir()
    finished([PROGRAM, one, "together", 4])
    nodes(2, 2, [PROGRAM, two, "together"])
    alone, apart = left_by(one, 4), left_by(two, 4)
    assert apart == [apart[0]] * 4
    assert apart[0]["digest"] == alone[0]["digest"]
    assert read_card(two / "artifact").variant("int8").metric == (
        read_card(one / "artifact").variant("int8").metric
    )
    check_artifact(two / "artifact")
