"""Frozen weights: never pruned, or pruned once a finetuning callback has them trained."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ForeignModule, loader
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BackboneFinetuning, BaseFinetuning
from torch import Tensor, nn

from lit_compress import Schedule
from lit_compress.callbacks import FilterPruning, MagnitudePruning, RulePruning
from lit_compress.errors import InvalidArgumentError, PatternError

MakeTrainer = Callable[..., Trainer]


class Transfer(ForeignModule):
    """Has the name that BackboneFinetuning wants, and trains what is trained."""

    def __init__(self) -> None:
        super().__init__()
        del self.net
        self.backbone = nn.Sequential(
            nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1)
        )
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.backbone(x))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD([p for p in self.parameters() if p.requires_grad], lr=0.05)


class Later(BaseFinetuning):
    """A finetuning callback of a user's own, which trains the backbone from an epoch on."""

    def __init__(self, epoch: int) -> None:
        super().__init__()
        self.epoch = epoch

    def freeze_before_training(self, pl_module: LightningModule) -> None:
        self.freeze(pl_module.backbone)

    def finetune_function(self, pl_module: LightningModule, epoch: int, optimizer: Any) -> None:
        if epoch == self.epoch:
            self.unfreeze_and_add_param_group(pl_module.backbone, optimizer)


def fit(make_trainer: MakeTrainer, *callbacks: Any, epochs: int = 5) -> Transfer:
    module = Transfer()
    trainer = make_trainer(max_epochs=epochs, callbacks=list(callbacks), limit_train_batches=1)
    trainer.fit(module, loader(16), loader(16, 1))
    return module


@pytest.mark.parametrize("of", ["filters", "parameters", "macs"])
def test_a_backbone_that_is_trained_later_counts_from_the_start(
    of: Any, make_trainer: MakeTrainer
) -> None:
    """It said 300 % removed, since the filters of the head alone counted, or refused the target."""
    pruning = FilterPruning(0.5, of=of, schedule=Schedule(2, 3))
    module = fit(make_trainer, BackboneFinetuning(1), pruning)
    assert 0.45 <= pruning.reached <= 0.6
    assert module.backbone[0].out_channels < 8


def test_filters_that_are_not_trained_yet_wait_for_a_later_step(make_trainer: MakeTrainer) -> None:
    pruning = FilterPruning(0.5, schedule=Schedule(1, 3, shape="linear"))
    fit(make_trainer, Later(3), pruning)
    assert [step["reached"] for step in pruning.history] == [1 / 24, 2 / 24, 0.5]


def test_filters_that_are_trained_too_late_are_said_to_be_missing(
    make_trainer: MakeTrainer,
) -> None:
    pruning = FilterPruning(0.5, schedule=Schedule(1, 2))
    with pytest.warns(UserWarning, match=r"reached 0.17 of 0.50: .* backbone.0 .* not trained yet"):
        module = fit(make_trainer, Later(3), pruning)
    assert module.backbone[0].out_channels == 8
    assert module.head[1].out_features == 4


@pytest.mark.parametrize(
    "pruning",
    [
        FilterPruning(0.5, schedule=Schedule(1, 2)),
        MagnitudePruning(0.5, schedule=Schedule(1, 2)),
        RulePruning(target=0.5, schedule=Schedule(1, 2), shrink="never"),
    ],
)
def test_a_schedule_that_ends_before_the_backbone_is_trained_is_refused(
    pruning: Any, make_trainer: MakeTrainer
) -> None:
    with pytest.raises(InvalidArgumentError, match=r"trains backbone.0.weight .* from epoch 3 on"):
        fit(make_trainer, BackboneFinetuning(3), pruning)


def test_what_is_never_trained_keeps_its_filters(make_trainer: MakeTrainer) -> None:
    pruning, module = FilterPruning(0.5), Transfer()
    module.backbone.requires_grad_(False)
    make_trainer(callbacks=[pruning]).fit(module, loader(16), loader(16, 1))
    assert pruning.reached == 0.5
    assert (module.backbone[0].out_channels, module.head[1].out_features) == (8, 4)


@pytest.mark.parametrize("kind", ["magnitude", "rules"])
def test_what_is_never_trained_keeps_its_elements(kind: str, make_trainer: MakeTrainer) -> None:
    """A frozen backbone, teacher or momentum copy was zeroed all the same."""
    pruning = (
        MagnitudePruning(0.5) if kind == "magnitude" else RulePruning(target=0.5, shrink="never")
    )
    module = Transfer()
    module.backbone.requires_grad_(False)
    make_trainer(callbacks=[pruning]).fit(module, loader(16), loader(16, 1))
    assert all(parameter.ne(0).all() for parameter in module.backbone.parameters())
    assert int((module.head[1].weight == 0).sum()) + int((module.head[3].weight == 0).sum()) == 48


@pytest.mark.parametrize("scope", ["local", "global"])
def test_elements_that_are_trained_later_are_zeroed_then(
    scope: Any, make_trainer: MakeTrainer
) -> None:
    pruning = MagnitudePruning(0.5, schedule=Schedule(1, 3, shape="linear"), scope=scope)
    module = fit(make_trainer, Later(2), pruning)
    zeros = sum(int((p == 0).sum()) for n, p in module.named_parameters() if n.endswith("weight"))
    assert zeros == (8 * 9 + 64 * 9 + 64 + 32) / 2
    first, second, third = (step["reached"] for step in pruning.history)
    assert first < 0.1 < second < third == 0.5


def test_nothing_that_is_trained_is_refused(make_trainer: MakeTrainer) -> None:
    module = Transfer()
    module.backbone.requires_grad_(False)
    with pytest.raises(PatternError, match=r"nothing to prune: backbone.0.weight"):
        make_trainer(callbacks=[MagnitudePruning(0.5, include=["backbone.*"])]).fit(
            module, loader(16), loader(16, 1)
        )


def test_masks_of_frozen_weights_in_older_checkpoints_stay(
    make_trainer: MakeTrainer, tmp_path: Path
) -> None:
    """Earlier versions zeroed them; a resumed run keeps them at zero."""
    module, pruning = Transfer(), MagnitudePruning(0.5, schedule=Schedule(0, 1))
    trainer = make_trainer(callbacks=[pruning])
    trainer.fit(module, loader(16), loader(16, 1))
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    frozen, again = Transfer(), MagnitudePruning(0.5, schedule=Schedule(0, 1))
    frozen.configure_optimizers = lambda: torch.optim.SGD(frozen.parameters(), 0.05)  # type: ignore[method-assign]
    frozen.backbone.requires_grad_(False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        make_trainer(max_epochs=4, callbacks=[again]).fit(
            frozen, loader(16), loader(16, 1), ckpt_path=tmp_path / "a.ckpt"
        )
    assert again.masks.keys() == pruning.masks.keys()
    assert not frozen.backbone[2].weight[~again.masks["backbone.2.weight"]].any()
