"""Networks that return several tensors: pruned, quantised, measured and loaded by name."""

from __future__ import annotations

from collections import namedtuple
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ForeignModule, loader, stripes
from lightning.pytorch import Trainer
from torch import Tensor, nn

import lit_compress
from lit_compress.artifact import read_card, sqnr_db
from lit_compress.callbacks import CompressionReport, FilterPruning, PostTrainingQuantization
from lit_compress.trainer import Trainer as CompressTrainer

pytestmark = pytest.mark.usefixtures("no_trial_conversion")
Pair = namedtuple("Pair", ["scores", "features"])


@dataclass
class Result:
    scores: Tensor
    features: Tensor
    loss: Tensor | None = None


KINDS = {
    "dict": lambda a, b: {"scores": a, "features": b},
    "named tuple": Pair,
    "dataclass": Result,
}


class Several(ForeignModule):
    """Returns its scores and its features, as the user's steps expect them."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, x: Tensor) -> Any:
        features = self.net[:-1](x)
        return KINDS[self.kind](self.net[-1](features), features)

    def scores(self, x: Tensor) -> Tensor:
        found = self(x)
        scores: Tensor = found["scores"] if self.kind == "dict" else found.scores
        return scores

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        return nn.functional.cross_entropy(self.scores(batch[0]), batch[1])

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        scores = self.scores(batch[0])
        self.log("my_acc", (scores.argmax(-1) == batch[1]).float().mean())

    test_step = validation_step


@pytest.mark.parametrize("kind", KINDS)
def test_several_outputs_from_fit_to_file(tmp_path: Path, kind: str) -> None:
    """Only networks that return one tensor got a file."""
    module = Several(kind)
    callbacks = [
        FilterPruning(0.25),
        PostTrainingQuantization("my_acc", dirpath=str(tmp_path / "a")),
        CompressionReport(),
    ]
    options: dict[str, Any] = {"enable_progress_bar": False, "enable_model_summary": False}
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=4,
        callbacks=callbacks,
        default_root_dir=str(tmp_path),
        logger=False,
        **options,
    )
    trainer.fit(module, loader(128), loader(48, 1))
    card, net = read_card(tmp_path / "a"), lit_compress.load(tmp_path / "a")
    images, labels = stripes(48, 1).tensors
    found = net(images)
    assert list(found) == list(net.outputs) == ["scores", "features"]
    with torch.no_grad():
        expected = module.eval()(images)
    get = expected.get if kind == "dict" else lambda name: getattr(expected, name)
    fidelity = card.variant("int8").fidelity
    assert fidelity is not None
    for output in fidelity.outputs:
        sqnr = sqnr_db(get(output.name).numpy(), found[output.name])
        assert output.sqnr_db == pytest.approx(sqnr, abs=0.01)
        assert sqnr > 20
    assert fidelity.sqnr_db == min(output.sqnr_db for output in fidelity.outputs)
    metric = card.variant("int8").metric
    assert metric is not None
    accuracy = float((found["scores"].argmax(-1) == labels.numpy()).mean())
    assert metric.value == pytest.approx(accuracy)
    assert list(lit_compress.load(tmp_path / "a", weights="fp32")(images)) == list(net.outputs)
    (again,) = CompressTrainer(logger=False, accelerator="cpu", **options).test(
        Several(kind), loader(48, 1), artifact=tmp_path / "a"
    )
    assert again["my_acc"] == pytest.approx(np.float32(accuracy))
