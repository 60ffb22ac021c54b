"""An artefact has what was given and measured, or there is none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ForeignModule, loader, stripes
from lightning.pytorch import Trainer
from safetensors.torch import load_file

import lit_compress
from lit_compress.artifact import read_card, sha256
from lit_compress.callbacks._quantization.artifact import ArtifactOf, keep_weights, write_artifact
from lit_compress.errors import AccuracyError

pytestmark = pytest.mark.usefixtures("noise_of_two_inputs")


def test_the_card_has_what_was_given_and_what_was_measured(
    made: Callable[..., Any], foreign: ForeignModule, tmp_path: Path
) -> None:
    pruning = [{"callback": "FilterPruning", "target": 0.5, "reached": 0.5, "epochs": [1]}]
    what = ArtifactOf(None, 2, "my_acc", {"weights": "last", "seed": 7}, pruning)
    write_artifact(tmp_path / "a", made(monitor="my_acc"), what)
    card = read_card(tmp_path / "a")
    assert card.config["PostTrainingQuantization"] == {
        "weights": "last",
        "seed": 7,
        "network": "",
        "inputs": ["input"],
    }
    assert list(card.pruning) == pruning
    assert [(variant.name, variant.epoch) for variant in card.variants] == [
        ("dense", 2),
        ("int8", 2),
    ]
    images, labels = stripes(96, 1).tensors
    with torch.no_grad():
        right = (foreign.eval()(images).argmax(1) == labels).float().mean()
    assert card.variants[0].metric is not None
    assert card.variants[0].metric.value == pytest.approx(float(right))
    assert card.variants[1].macs == card.variants[0].macs
    files = {path.name for path in (tmp_path / "a").iterdir()} - {"card.json"}
    assert files == {"model.onnx", "model.safetensors", "replay.npz"}
    assert card.files == {name: sha256(tmp_path / "a" / name) for name in files}
    assert lit_compress.load(tmp_path / "a")(images.numpy()).shape == (96, 4)


def test_without_validation_data_the_card_says_what_calibrated(
    made: Callable[..., Any], fitted: Trainer, foreign: ForeignModule, tmp_path: Path
) -> None:
    fitted.fit_loop.max_epochs = 3
    fitted.fit(foreign, loader(64))
    write_artifact(tmp_path / "a", made(), ArtifactOf(None, None, None, {}))
    config = read_card(tmp_path / "a").config["PostTrainingQuantization"]
    assert config["calibration_split"] == "train"


def test_a_file_that_loses_too_much_leaves_no_artefact(
    made: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lit_compress.callbacks._quantization.file import drop

    monkeypatch.setattr(drop, "lost_of", lambda *_: 0.5)
    conversion = made(monitor="my_acc", max_drop=0.01)
    with pytest.raises(AccuracyError, match="no artefact was written"):
        write_artifact(tmp_path / "a", conversion, ArtifactOf(None, 2, "my_acc", {}))
    assert not list(tmp_path.iterdir())


def test_the_weights_are_kept_beside_the_artefact(foreign: ForeignModule, tmp_path: Path) -> None:
    text = keep_weights(tmp_path / "a", foreign, None)
    path = tmp_path / "a-trained.safetensors"
    assert f"float weights are in {path}." in text
    assert f"ckpt_path={str(path)!r}" in text
    stored = load_file(path)
    assert all(torch.equal(value, stored[key]) for key, value in foreign.state_dict().items())
