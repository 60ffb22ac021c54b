"""Training steps on a copy: they train the copy, and the run does not notice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from conftest import ForeignModule, ManualModule, loader
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from lit_compress.evaluation.run_view.copies import clone_with
from lit_compress.evaluation.run_view.training import train


class Logs(ForeignModule):
    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        self.log("loss_of_step", loss, prog_bar=True)
        self.log("number", float(batch_idx), on_step=False, on_epoch=True)
        return loss


class TrainsACopy(Callback):
    """Trains a copy at the start of the fit, and compares what the run had before and after."""

    def __init__(self, batches: int) -> None:
        self.batches, self.changed, self.metrics = batches, 0, {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        before = [tensor.clone() for tensor in pl_module.state_dict().values()]
        random, steps = torch.get_rng_state(), trainer.global_step
        copy, optimizers = clone_with(trainer, pl_module, trainer.optimizers)
        self.metrics = train(trainer, copy, optimizers, [loader(48)], self.batches)
        self.changed = sum(
            not torch.equal(a, b) for a, b in zip(before, copy.state_dict().values(), strict=True)
        )
        after = pl_module.state_dict().values()
        assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
        assert torch.equal(random, torch.get_rng_state())
        assert trainer.global_step == steps == 0
        assert pl_module.trainer is trainer
        assert not any(optimizer.state for optimizer in trainer.optimizers)
        assert not trainer.callback_metrics


@pytest.mark.parametrize("kind", [Logs, ManualModule])
def test_the_copy_is_trained_and_the_run_is_as_it_was(
    kind: type, make_trainer: Callable[..., Trainer]
) -> None:
    callback = TrainsACopy(1)
    options = {"num_sanity_val_steps": 0, "max_epochs": 1}
    make_trainer(callbacks=[callback], **options).fit(kind(), loader(32), loader(16, 1))
    assert callback.changed >= 6


@pytest.mark.parametrize(("batches", "mean"), [(1, 0.0), (2, 0.5), (9, 1.0)])
def test_metrics_are_those_of_the_batches_that_were_trained(
    batches: int, mean: float, make_trainer: Callable[..., Trainer]
) -> None:
    callback = TrainsACopy(batches)
    options = {"num_sanity_val_steps": 0, "max_epochs": 1}
    make_trainer(callbacks=[callback], **options).fit(Logs(), loader(32), loader(16, 1))
    assert float(callback.metrics["number"]) == mean
    assert float(callback.metrics["loss_of_step"]) > 0


def test_the_copy_ends_as_a_fit_of_as_many_batches(make_trainer: Callable[..., Trainer]) -> None:
    """Lightning's own loop is the reference."""
    made: dict[str, Tensor] = {}

    class Keeps(Callback):
        def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
            copy, optimizers = clone_with(trainer, pl_module, trainer.optimizers)
            train(trainer, copy, optimizers, [loader(48)], 3)
            made.update(copy.state_dict())

    torch.manual_seed(0)
    module = ForeignModule()
    make_trainer(callbacks=[Keeps()], max_epochs=1).fit(module, loader(48), loader(16, 1))
    for name, tensor in module.state_dict().items():
        torch.testing.assert_close(made[name], tensor, rtol=0, atol=0, msg=name)
