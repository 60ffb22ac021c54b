"""Estimating batch norm statistics again, after channels were removed."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from lit_compress.evaluation.distributed import on_rank_zero
from lit_compress.evaluation.loaders import training_loaders
from lit_compress.evaluation.run_view.copies import clone, clone_with
from lit_compress.evaluation.run_view.training import train
from lit_compress.evaluation.validate import validate

Statistics = dict[str, tuple[Tensor, Tensor]]


def recalibrate(trainer: Trainer, pl_module: LightningModule, batches: int) -> None:
    """Set the statistics of batch norms to their average over training batches.

    Args:
        trainer: The run in progress.
        pl_module: The user's module.
        batches: Number of batches.
    """
    found = on_rank_zero(
        trainer,
        lambda: _estimated(trainer, pl_module, batches),
        "it estimates the statistics of batch norms",
    )
    norms = _norms(pl_module)
    for name, (mean, variance) in found.items():
        norms[name].running_mean.copy_(mean)  # type: ignore[union-attr]
        norms[name].running_var.copy_(variance)  # type: ignore[union-attr]


def _estimated(trainer: Trainer, pl_module: LightningModule, batches: int) -> Statistics:
    copy = clone(trainer, pl_module)
    loaders = training_loaders(trainer)
    norms = _averaging(copy)
    if not norms or not loaders:
        return {}
    with torch.no_grad():
        validate(trainer, copy, loaders[:1], batches)
    found = _tracked(norms)
    return found if found or not trainer.optimizers else _in_training(trainer, pl_module, batches)


def _in_training(trainer: Trainer, pl_module: LightningModule, batches: int) -> Statistics:
    """Estimate them in training steps, where validation never calls the network."""
    copy, optimizers = clone_with(trainer, pl_module, trainer.optimizers)
    norms = _averaging(copy)
    for group in (group for optimizer in optimizers for group in optimizer.param_groups):
        group["lr"] = 0 * group["lr"]
    train(trainer, copy, optimizers, training_loaders(trainer), batches)
    return _tracked(norms)


def _averaging(module: nn.Module) -> dict[str, _BatchNorm]:
    """Return the norms of a module, set to average from now on."""
    norms = _norms(module)
    for norm in norms.values():
        norm.reset_running_stats()
        norm.momentum = None  # the plain average
        norm.register_forward_pre_hook(_train)
    return norms


def _tracked(norms: dict[str, _BatchNorm]) -> Statistics:
    return {
        name: (norm.running_mean, norm.running_var)
        for name, norm in norms.items()
        if norm.running_mean is not None and norm.running_var is not None
        if norm.num_batches_tracked  # norms that are never called keep their statistics
    }


def _norms(module: nn.Module) -> dict[str, _BatchNorm]:
    return {
        name: child
        for name, child in module.named_modules()
        if isinstance(child, _BatchNorm) and child.track_running_stats
    }


def _train(norm: nn.Module, _: Any) -> None:
    norm.training = True
