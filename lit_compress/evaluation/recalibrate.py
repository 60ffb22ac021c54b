"""Estimating batch norm statistics again, after channels were removed."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from lit_compress.evaluation.distributed import on_rank_zero
from lit_compress.evaluation.loaders import training_loaders
from lit_compress.evaluation.validate import clone, validate

Statistics = dict[str, tuple[Tensor, Tensor]]


def recalibrate(trainer: Trainer, pl_module: LightningModule, batches: int) -> None:
    """Set the statistics of batch norms to their average over training batches.

    Args:
        trainer: The run in progress.
        pl_module: The user's module.
        batches: Number of batches.
    """
    found = on_rank_zero(trainer, lambda: _estimated(trainer, pl_module, batches))
    norms = _norms(pl_module)
    for name, (mean, variance) in found.items():
        norms[name].running_mean.copy_(mean)  # type: ignore[union-attr]
        norms[name].running_var.copy_(variance)  # type: ignore[union-attr]


def _estimated(trainer: Trainer, pl_module: LightningModule, batches: int) -> Statistics:
    copy = clone(trainer, pl_module)
    norms = _norms(copy)
    loaders = training_loaders(trainer)
    if not norms or not loaders:
        return {}
    for norm in norms.values():
        norm.reset_running_stats()
        norm.momentum = None  # the plain average
        norm.register_forward_pre_hook(_train)
        if isinstance(norm, nn.SyncBatchNorm):  # on the CPU there is no other process to ask
            norm.forward = partial(_BatchNorm.forward, norm)  # type: ignore[method-assign]
    with torch.no_grad():
        validate(trainer, copy, loaders[:1], batches)
    return {
        name: (norm.running_mean, norm.running_var)
        for name, norm in norms.items()
        if norm.running_mean is not None and norm.running_var is not None
        if norm.num_batches_tracked  # norms that validation never calls keep their statistics
    }


def _norms(module: nn.Module) -> dict[str, _BatchNorm]:
    return {
        name: child
        for name, child in module.named_modules()
        if isinstance(child, _BatchNorm) and child.track_running_stats
    }


def _train(norm: nn.Module, _: Any) -> None:
    norm.training = True
