"""The user's steps are run on copies, and what they log is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from doctor.faults import Net, diagnosed, healthy


class Logarithm(Net):
    """Its loss is infinite."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return super().training_step(batch, batch_idx) - torch.log(batch[0].sum() * 0)


class Keys(Net):
    """Logs in the training step, and returns a mapping."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = super().training_step(batch, batch_idx)
        self.log("train_loss", loss)
        return {"loss": loss}


def test_an_infinite_loss_is_an_error(tmp_path: Path) -> None:
    case = healthy(tmp_path)
    case.module = Logarithm()
    (error,) = diagnosed(case).errors
    assert error.question == "training step"
    assert error.found == "the loss of the first training batch is inf"


def test_loss_and_metrics_are_said(tmp_path: Path) -> None:
    case = healthy(tmp_path)
    case.module = Keys()
    found = {one.question: one.found for one in diagnosed(case).findings}
    loss = case.module.train()
    first = [tensor[:16] for tensor in case.train]
    expected = torch.nn.functional.cross_entropy(loss(first[0]), first[1])
    assert (
        f"the loss of the first batch is {float(expected.detach()):.4g}" in found["training step"]
    )
    assert found["training step"].endswith("logs train_loss")
    assert found["validation step"] == "runs, and logs val_acc, val_loss"


def test_a_step_that_fails_says_what_it_got(tmp_path: Path) -> None:
    case = healthy(tmp_path)
    case.train[0] = case.train[0][:, :, :2, :2]
    (error,) = diagnosed(case).errors
    assert error.question == "training step"
    assert "batch[0] [16, 1, 2, 2]" in error.remedy
    assert "faults.py:" in error.remedy
