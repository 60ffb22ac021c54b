"""Recording what a run looks like after each epoch."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from math import isfinite
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvTransposeNd

from lit_compress.artifact.history import Epoch, Layers, layers_from
from lit_compress.callbacks._pruning.base import pruning_callbacks
from lit_compress.callbacks._pruning.channels import sizes_left
from lit_compress.pruning.layers import plain_weights, prunable_layers


class History:
    """The epochs of a run so far; a resumed run goes on with those before it.

    Attributes:
        epochs: The epochs, in order. Only those in which a layer changed have layers.
        unpruned: The layers before the first pruning; None if there was none.
    """

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Begin with nothing."""
        self.epochs: list[Epoch] = []
        self.unpruned: Layers | None = None
        self._start = 0.0
        self._metric: float | None = None
        #: The layers, and the epoch that they were counted in: pruning is at its beginning.
        self._counted: tuple[int, Layers] | None = None

    def begin(self) -> None:
        """Note that an epoch begins."""
        self._start, self._metric = time.monotonic(), None

    def before_pruning(self, module: LightningModule) -> None:
        """Note the layers of the unpruned network."""
        self.unpruned = count_layers(module)

    def validated(self, trainer: Trainer, monitor: str | None) -> None:
        """Note the metric of a validation."""
        value = trainer.callback_metrics.get(monitor or "")
        if value is not None and isfinite(float(value)):
            self._metric = float(value)

    def record(self, trainer: Trainer, module: LightningModule) -> Epoch:
        """Record the epoch as it is now; the last record of an epoch counts."""
        pruners, now = pruning_callbacks(trainer), trainer.current_epoch
        if self._counted and self.epochs and self._counted[0] == self.epochs[-1].epoch == now:
            known = replace(self.epochs[-1], seconds=time.monotonic() - self._start)
            self.epochs[-1] = known = replace(known, metric=self._metric)
            return replace(known, layers=self._counted[1])
        if self._counted is None or self._counted[0] != now:
            self._counted = (now, count_layers(module))
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
            layers=self._counted[1],
        )
        before = [other for other in self.epochs if other.epoch < now]
        last = next((other.layers for other in reversed(before) if other.layers), None)
        same = last == epoch.layers
        self.epochs = [*before, replace(epoch, layers=None) if same else epoch]
        return epoch

    def state(self) -> dict[str, Any]:
        """Return the epochs and the unpruned layers as plain values, for a checkpoint."""
        unpruned = None if self.unpruned is None else asdict(self.unpruned)
        return {"epochs": [epoch.to_dict() for epoch in self.epochs], "unpruned": unpruned}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take on what :meth:`state` returned; checkpoints of older versions have nothing."""
        self.forget()
        self.epochs = [Epoch.from_dict(item) for item in state.get("epochs", ())]
        self.unpruned = layers_from(state.get("unpruned"))


def count_layers(module: nn.Module) -> Layers:
    """Return what the conv and linear layers of a module have that is not zero.

    Weights that are computed from others are left out: to read one can change the module, as with
    a spectral norm in training.

    Args:
        module: The module.

    Example:
        >>> count_layers(nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU()))
        Layers(channels={'0': 4}, weights={'0': 36})
    """
    layers, channels, weights = prunable_layers(module), dict[str, int](), dict[str, int]()
    for key, weight in plain_weights(module).items():
        name = key.removesuffix("weight").removesuffix(".")
        channels[name] = _channels(layers[name], weight.detach())
        weights[name] = int(weight.count_nonzero())
    return Layers(channels, weights)


def _channels(layer: nn.Module, weight: Tensor) -> int:
    """Return how many output channels or features have a weight that is not zero."""
    if isinstance(layer, _ConvTransposeNd):  # groups are in a row along the axis of the inputs
        inputs, outputs, *kernel = weight.shape
        grouped = weight.reshape(layer.groups, inputs // layer.groups, outputs, *kernel)
        weight = grouped.transpose(1, 2).flatten(0, 1)
    return int(weight.flatten(1).any(1).sum())
