"""The float file takes what the int8 file takes, and computes what the network does."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ForeignModule, stripes
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import lit_compress
from lit_compress import Schedule
from lit_compress.artifact import sqnr_db
from lit_compress.artifact.fidelity import sketch_db
from lit_compress.artifact.folder.names import FP32
from lit_compress.artifact.replay import read_replay
from lit_compress.callbacks import (
    CompressionReport,
    MagnitudePruning,
    PostTrainingQuantization,
)
from lit_compress.callbacks._report import fp32
from lit_compress.errors import ExportError
from lit_compress.export import checks

pytestmark = pytest.mark.usefixtures("no_trial_conversion", "noise_of_two_inputs")


def fit(
    make_trainer: Callable[..., Trainer], module: Any, data: Any, folder: Path, **options: Any
) -> Any:
    quantizer = PostTrainingQuantization(dirpath=str(folder), **options)
    callbacks = [quantizer, CompressionReport()]
    loader = DataLoader(data, batch_size=16)
    make_trainer(max_epochs=1, callbacks=callbacks).fit(module, loader, loader)
    module.eval()
    return lit_compress.load(folder, weights="fp32")


def test_raw_pixels(make_trainer: Callable[..., Trainer], tmp_path: Path) -> None:
    images, labels = stripes(64, 0).tensors
    pixels = (images.clamp(-1, 1) * 127 + 128).to(torch.uint8)
    data = TensorDataset((pixels / 255 - 0.5) / 0.25, labels)
    module = ForeignModule()
    net = fit(make_trainer, module, data, tmp_path / "a", mean=[0.5], std=[0.25])
    assert str(net.input_dtype) == "uint8"
    with torch.no_grad():
        expected = module(data.tensors[0]).numpy()
    assert sqnr_db(expected, net(pixels.numpy())) > 90
    (recorded,) = [v.fidelity for v in net.card.variants if v.file == FP32]
    stored, _ = read_replay(tmp_path / "a" / "replay.npz")
    assert sketch_db(recorded.replay_sketch, [net(*stored)]) > 100


class TwoInputs(LightningModule):
    """A network of two inputs, the second of which the outputs need less."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Linear(4, 3), nn.Linear(5, 3)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        out: Tensor = self.one(x).relu() + self.other(y)
        return out

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        return self(batch[0], batch[1]).square().mean()

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.log("loss", self(batch[0], batch[1]).square().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.01)


def test_two_inputs(make_trainer: Callable[..., Trainer], tmp_path: Path) -> None:
    x, y = torch.randn(64, 4), torch.randn(64, 5)
    module = TwoInputs()
    net = fit(make_trainer, module, TensorDataset(x, y), tmp_path / "a")
    with torch.no_grad():
        expected = module(x, y).numpy()
    assert sqnr_db(expected, np.asarray(net(x.numpy(), y.numpy()))) > 90


def test_a_failed_write_leaves_no_half_file(
    make_trainer: Callable[..., Trainer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace = os.replace

    def fails(source: Path, target: Path) -> None:
        if Path(target).name == FP32:
            raise OSError("no space left")
        replace(source, target)

    monkeypatch.setattr(os, "replace", fails)
    with pytest.raises(OSError, match="no space"):
        fit(make_trainer, ForeignModule(), stripes(64, 0), tmp_path / "a")
    names = {path.name for path in (tmp_path / "a").iterdir()}
    assert FP32 not in names
    assert not [name for name in names if name.endswith(".part")]
    assert lit_compress.load(tmp_path / "a")


@pytest.fixture
def little_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    """An ONNX file takes 1,000 bytes of weights, and the network has more."""
    for place in (fp32, checks):
        monkeypatch.setattr(place, "LARGEST", 1_000)


@pytest.mark.usefixtures("little_fits")
def test_too_many_weights_are_refused_before_the_training(
    make_trainer: Callable[..., Trainer], tmp_path: Path
) -> None:
    """More than 2 GB ended in an error of protobuf after the training."""
    module = ForeignModule()
    before = module.net[0].weight.clone()
    with pytest.raises(
        ExportError, match=r"this network has 0\.00 GB. Leave CompressionReport out"
    ):
        fit(make_trainer, module, stripes(64, 0), tmp_path / "a")
    assert torch.equal(module.net[0].weight, before)
    assert not (tmp_path / "a").exists()


def test_too_many_weights_after_the_pruning(
    make_trainer: Callable[..., Trainer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is pruned may fit at the end; the report is whole without the file."""
    monkeypatch.setattr(fp32, "LARGEST", 1_000)
    quantizer = PostTrainingQuantization(dirpath=str(tmp_path / "a"))
    pruning = MagnitudePruning(0.5, Schedule(0, shape="one_shot"))
    report, data = CompressionReport("my_acc"), DataLoader(stripes(64, 0), batch_size=16)
    trainer = make_trainer(max_epochs=1, callbacks=[pruning, quantizer, report])
    with pytest.warns(UserWarning, match="there is no model-fp32.onnx in the artefact"):
        trainer.fit(ForeignModule(), data, data)
    assert report.card is not None
    names = [variant.name for variant in report.card.variants]
    assert names == ["dense", "pruned", "int8"]
    assert report.card.variant("int8").latency is not None
    assert lit_compress.load(tmp_path / "a")
