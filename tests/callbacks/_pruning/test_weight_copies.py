"""Copies of the weights in other callbacks are tried before the training."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from conftest import ForeignModule, loader
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.optim.swa_utils import AveragedModel

from lit_compress import Schedule
from lit_compress.callbacks import FilterPruning
from lit_compress.errors import InvalidArgumentError

MakeTrainer = Callable[..., Trainer]


class Shadow(Callback):
    """An exponential average in a dictionary of tensors."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.shadow = {n: p.detach().clone() for n, p in pl_module.named_parameters()}

    def on_train_batch_end(self, trainer: Any, pl_module: LightningModule, *_: Any) -> None:
        for name, parameter in pl_module.named_parameters():
            self.shadow[name].lerp_(parameter.detach(), 0.1)


class Average(Callback):
    """Keeps torch's average, and updates it at the end of each epoch."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.ema = AveragedModel(pl_module.net)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.ema.update_parameters(pl_module.net)


class Teacher(Callback):
    """A dense copy of the network, which only answers."""

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.teacher = copy.deepcopy(pl_module.net)

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, batch_idx: int) -> None:
        self.wanted = self.teacher(batch[0])


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize(("kind", "kept"), [(Shadow, "shadow"), (Average, "ema")])
def test_an_average_in_a_callback_is_refused_by_name(
    kind: type[Callback], kept: str, before: bool, make_trainer: MakeTrainer
) -> None:
    """It failed in the training, or held filters of others."""
    average, pruning = kind(), FilterPruning(0.5, schedule=Schedule(1, 1))
    order = [average, pruning] if before else [pruning, average]
    module = ForeignModule()
    weight = module.net[3].weight.detach().clone()
    with pytest.raises(InvalidArgumentError, match=rf"{kind.__name__} keeps .*\({kept}\)"):
        make_trainer(callbacks=order).fit(module, loader(32), loader(16, 1))
    assert torch.equal(module.net[3].weight, weight)


def test_a_teacher_in_a_callback_stays(make_trainer: MakeTrainer) -> None:
    teacher, pruning, module = Teacher(), FilterPruning(0.5), ForeignModule()
    make_trainer(callbacks=[teacher, pruning]).fit(module, loader(32), loader(16, 1))
    assert (module.net[3].out_channels, teacher.teacher[3].out_channels) == (6, 12)
    assert teacher.wanted.shape == (16, 4)


class Taught(ForeignModule):
    """Learns from a teacher that it hides from its own parts."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = [copy.deepcopy(self.net)]

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        with torch.no_grad():
            wanted = self.hidden[0](batch[0])
        return (self(batch[0]) - wanted).square().mean()


def test_a_teacher_outside_the_module_stays(make_trainer: MakeTrainer) -> None:
    module = Taught()
    make_trainer(callbacks=[FilterPruning(0.5)]).fit(module, loader(32), loader(16, 1))
    assert (module.net[3].out_channels, module.hidden[0][3].out_channels) == (6, 12)


class Hidden(Taught):
    """The same copy, as an average: it is no part of the module, so it cannot be cut along."""

    def on_train_batch_end(self, *_: Any) -> None:
        for mine, other in zip(self.hidden[0].parameters(), self.net.parameters(), strict=True):
            mine.data.lerp_(other.data, 0.1)


def test_an_average_outside_the_module_is_refused(make_trainer: MakeTrainer) -> None:
    with pytest.raises(InvalidArgumentError, match="Hidden fails once channels are removed"):
        make_trainer(callbacks=[FilterPruning(0.5, schedule=Schedule(1, 1))]).fit(
            Hidden(), loader(32), loader(16, 1)
        )
