"""What a validation_step logs, collected without a Trainer's loops around it."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning.fabric.utilities.apply_func import move_data_to_device
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.data import extract_batch_size
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import nn
from torchmetrics import Metric, MetricCollection

from lit_compress.errors import ScanError

#: Hooks beside validation_step in which a module may do part of its measuring.
HOOKS = (
    "on_validation_start",
    "on_validation_epoch_start",
    "on_validation_batch_start",
    "on_validation_batch_end",
    "on_validation_epoch_end",
    "on_validation_end",
)


class Tally:
    """Sums up what is logged over batches; torchmetrics are copies of its own.

    Args:
        module: The module whose validation_step logs.
    """

    def __init__(self, module: LightningModule) -> None:
        self._homes = [(home, name, home[name]) for home, name in _homes(module)]
        self._metrics = [copy.deepcopy(metric) for _, _, metric in self._homes]
        self._sums: dict[str, tuple[float, float]] = {}
        self._logged: dict[str, Metric] = {}

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Put the tally's metrics in the place of the module's own."""
        try:
            for (home, name, _), metric in zip(self._homes, self._metrics, strict=True):
                home[name] = metric
            yield
        finally:
            for home, name, own in self._homes:
                home[name] = own

    def add(self, name: str, value: Any, weight: float) -> None:
        """Add what was logged for a batch.

        Args:
            name: The key.
            value: A number, a tensor of one element, or a torchmetrics metric.
            weight: Examples in the batch.
        """
        if isinstance(value, Metric):
            self._logged[name] = value
            return
        total, count = self._sums.get(name, (0.0, 0.0))
        self._sums[name] = (total + float(value) * weight, count + weight)

    def scores(self) -> dict[str, float]:
        """Return the mean over examples of each key, and what the metrics compute."""
        found = {name: total / count for name, (total, count) in self._sums.items() if count}
        return found | {name: float(metric.compute()) for name, metric in self._logged.items()}


def plain_hooks(module: LightningModule) -> bool:
    """Tell whether a module does all its measuring in validation_step."""
    return not any(is_overridden(hook, module, LightningModule) for hook in HOOKS)


def step(module: LightningModule, batch: Any, index: int, tally: Tally) -> None:
    """Run a module's validation_step on a batch, and add what it logs to a tally.

    Args:
        module: A copy of the user's module, in eval mode.
        batch: As the loader gives it.
        index: Its number.
        tally: Where to add; its metrics must be in place.

    Raises:
        ScanError: If it logs in a way that cannot be summed up here.
    """
    batch = module.on_before_batch_transfer(batch, 0)
    batch = module.on_after_batch_transfer(move_data_to_device(batch, module.device), 0)
    size: list[int] = []

    def log(name: str, value: Any, *_: Any, **options: Any) -> None:
        reduce = options.get("reduce_fx", "mean")
        if reduce not in ("mean", torch.mean) or options.get("on_epoch") is False:
            raise ScanError(f"{name} is logged with reduce_fx={reduce!r} or not by the epoch")
        given = options.get("batch_size")
        if given is None and not isinstance(value, Metric):
            if not size:
                size.append(extract_batch_size(batch))
            given = size[0]
        tally.add(name, value, float(given or 0))

    def log_dict(values: Any, *_: Any, **options: Any) -> None:
        for name, value in values.items():
            log(name, value, **options)

    with _replaced(module, log=log, log_dict=log_dict):
        module.validation_step(batch, index)


def _homes(module: nn.Module) -> Iterator[tuple[dict[str, Any], str]]:
    """Return where the metrics and collections of a module are that are in no collection."""
    for name, child in module.named_children():
        if isinstance(child, (Metric, MetricCollection)):
            yield module._modules, name
        else:
            yield from _homes(child)


@contextmanager
def _replaced(module: nn.Module, **methods: Any) -> Iterator[None]:
    before = {name: vars(module)[name] for name in methods if name in vars(module)}
    vars(module).update(methods)
    try:
        yield
    finally:
        for name in methods:
            vars(module).pop(name, None)
        vars(module).update(before)
