"""Averages and momentum copies in the module lose the same channels; teachers lose none."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from conftest import ForeignModule, loader
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from lit_compress import Schedule
from lit_compress.callbacks import FilterPruning, MagnitudePruning
from lit_compress.pruning.channels.resize import unpruned_shapes_of

MakeTrainer = Callable[..., Trainer]
ONCE = Schedule(first=1, shape="one_shot")


def move(copied: nn.Module, net: nn.Module, rate: float = 0.01) -> None:
    with torch.no_grad():
        for mine, other in zip(copied.parameters(), net.parameters(), strict=True):
            mine.lerp_(other, rate)


class Taught(ForeignModule):
    """Has a teacher, which is moved where a user would move it."""

    def __init__(self, where: str, optimized: str = "net") -> None:
        super().__init__()
        self.where, self.optimized = where, optimized
        self.teacher = copy.deepcopy(self.net).requires_grad_(False)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        if self.where == "step":
            move(self.teacher, self.net, 4e-5)  # as BYOL does: before the step
        with torch.no_grad():
            wanted = self.teacher(batch[0])
        return (self(batch[0]) - wanted).square().mean() + super().training_step(batch, batch_idx)

    def on_train_batch_end(self, *_: Any) -> None:
        if self.where == "hook":
            move(self.teacher, self.net)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        every = self.parameters() if self.optimized == "all" else self.net.parameters()
        return torch.optim.SGD(every, lr=0.05, momentum=0.9)


class Averaged(ForeignModule):
    """Answers from an average in eval mode, which is updated at the end of each epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.ema = AveragedModel(self.net, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x) if self.training else self.ema(x)

    def on_train_epoch_end(self) -> None:
        self.ema.update_parameters(self.net)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.net.parameters(), lr=0.05, momentum=0.9)


class Marked(Callback):
    """Marks the filters of two layers by their biases, to see which are left."""

    def on_fit_start(self, trainer: Trainer, pl_module: Any) -> None:
        for layer in self.layers(pl_module):
            layer.bias.data = torch.arange(12.0)
            layer.bias.requires_grad_(False)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.left = [layer.bias.tolist() for layer in self.layers(pl_module)]

    def layers(self, module: Any) -> list[nn.Conv2d]:
        other = module.teacher if hasattr(module, "teacher") else module.ema.module
        return [module.net[3], other[3]]


def fit(module: LightningModule, make_trainer: MakeTrainer, **options: Any) -> Marked:
    marked = Marked()
    pruning = FilterPruning(0.5, **{"schedule": ONCE} | options)
    trainer = make_trainer(callbacks=[marked, pruning], limit_train_batches=2)
    trainer.fit(module, loader(32), loader(16, 1))
    return marked


@pytest.mark.parametrize(
    "module",
    [Taught("hook"), Taught("step"), Taught("step", optimized="all"), Averaged()],
    ids=["hook", "step", "in the optimizer", "average"],
)
@pytest.mark.parametrize("of", ["filters", "parameters"])
def test_what_follows_the_network_loses_the_same_channels(
    module: LightningModule, of: Any, make_trainer: MakeTrainer
) -> None:
    """Each was cut by its own norms, or the user's hook failed after two epochs."""
    module = copy.deepcopy(module)
    net, other = fit(module, make_trainer, of=of).left
    assert net == other
    assert 3 <= len(net) <= 9


def test_a_teacher_that_stays_as_it_is_keeps_its_channels(make_trainer: MakeTrainer) -> None:
    """It taught what it knew when it was dense, which is the point of it."""
    module = Taught("never")
    before = copy.deepcopy(module.teacher)
    fit(module, make_trainer)
    assert module.net[0].out_channels == 4
    assert module.teacher[0].out_channels == 8
    before[3].bias.data = torch.arange(12.0)  # as marked
    left, right = module.teacher(x := torch.ones(1, 1, 8, 8)), before.train()(x)
    torch.testing.assert_close(left, right)


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`:UserWarning")
def test_checkpoints_know_the_follower(make_trainer: MakeTrainer, tmp_path: Any) -> None:
    module = Taught("hook")
    trainer = make_trainer(callbacks=[FilterPruning(0.5, schedule=ONCE)], limit_train_batches=2)
    trainer.fit(module, loader(32), loader(16, 1))
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    original = unpruned_shapes_of(torch.load(tmp_path / "a.ckpt", weights_only=True))
    assert original is not None
    assert original.shapes["teacher.3.weight"] == (12, 8, 3, 3)
    again = Taught("hook")
    tester = make_trainer(callbacks=[FilterPruning(0.5)])
    tester.validate(again, loader(16, 1), ckpt_path=tmp_path / "a.ckpt", verbose=False)
    assert torch.equal(again.teacher[3].weight, module.teacher[3].weight)


def test_elements_of_an_average_are_not_zeroed(make_trainer: MakeTrainer) -> None:
    module = Averaged()
    pruning = MagnitudePruning(0.5, ONCE)  # torch's average begins as a copy, in epoch 0
    make_trainer(callbacks=[pruning]).fit(module, loader(32), loader(16, 1))
    assert module.ema.module[3].weight.ne(0).all()
    assert int((module.net[3].weight == 0).sum()) > 300
