"""Recording what a run looks like after each epoch."""

from __future__ import annotations

import time
from dataclasses import replace
from math import isfinite
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from torch import nn

from lit_compress.artifact.history import Epoch
from lit_compress.callbacks._pruning.base import pruning_callbacks
from lit_compress.callbacks._pruning.channels import sizes_left
from lit_compress.pruning.layers import PRUNABLE


class History:
    """The epochs of a run so far; a resumed run goes on with those before it.

    Attributes:
        epochs: The epochs, in order.
    """

    def __init__(self) -> None:
        self.epochs: list[Epoch] = []
        self._start = 0.0
        self._metric: float | None = None

    def begin(self) -> None:
        """Note that an epoch begins."""
        self._start, self._metric = time.monotonic(), None

    def validated(self, trainer: Trainer, monitor: str | None) -> None:
        """Note the metric of a validation."""
        value = trainer.callback_metrics.get(monitor or "")
        if value is not None and isfinite(float(value)):
            self._metric = float(value)

    def record(self, trainer: Trainer, module: LightningModule) -> Epoch:
        """Record the epoch as it is now; the last record of an epoch counts."""
        pruners, now = pruning_callbacks(trainer), trainer.current_epoch
        own = sum(parameter.numel() for parameter in module.parameters())
        left = sizes_left(trainer, module)
        epoch = Epoch(
            now,
            time.monotonic() - self._start,
            parameters=left.get("parameters", own),
            metric=self._metric,
            reached=tuple(pruner.reached for pruner in pruners),
            pruned=any(step["epoch"] == now for pruner in pruners for step in pruner.history),
            macs=left.get("macs"),
            channels={name: _channels(layer) for name, layer in _layers(module)},
            weights={name: int(layer.weight.count_nonzero()) for name, layer in _layers(module)},
        )
        before = [other for other in self.epochs if other.epoch < now]
        kept = epoch if epoch.pruned or not before else replace(epoch, channels={}, weights={})
        self.epochs = [*before, kept]
        return epoch

    def state(self) -> list[dict[str, Any]]:
        """Return the epochs as plain values, for a checkpoint."""
        return [epoch.to_dict() for epoch in self.epochs]

    def restore(self, state: list[dict[str, Any]]) -> None:
        """Take on the epochs of a checkpoint."""
        self.epochs = [Epoch.from_dict(item) for item in state]


def _layers(module: LightningModule) -> list[tuple[str, Any]]:
    found = [(name, layer) for name, layer in module.named_modules() if isinstance(layer, PRUNABLE)]
    return [(name, layer) for name, layer in found if not nn.parameter.is_lazy(layer.weight)]


def _channels(layer: Any) -> int:
    """Return how many output channels or features have a weight that is not zero."""
    transposed = isinstance(layer, (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d))
    weight = layer.weight.detach()
    if transposed:  # groups stand side by side along the axis of the inputs
        weight = weight.unflatten(0, (layer.groups, -1)).transpose(1, 2).flatten(0, 1)
    return int(weight.flatten(1).any(1).sum())
