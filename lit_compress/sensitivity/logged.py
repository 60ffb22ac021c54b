"""What a validation_step logs, collected without a Trainer's loops around it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.data import extract_batch_size
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import Tensor
from torchmetrics import Metric, MetricCollection

from lit_compress.attributes import replaced_attributes
from lit_compress.errors import ReplayError, ScanError

#: Hooks beside validation_step in which a module may do part of its measuring.
HOOKS = (
    "on_validation_start",
    "on_validation_epoch_start",
    "on_validation_batch_start",
    "on_validation_batch_end",
    "on_validation_epoch_end",
    "on_validation_end",
)


class LoggedMetrics:
    """Sums up what is logged over batches, in the precision in which Lightning does.

    The metrics of the module start anew: there is one tally at a time.

    Args:
        module: The module whose validation_step logs.
    """

    def __init__(self, module: LightningModule) -> None:
        self._sums: dict[str, tuple[np.floating[Any], int]] = {}
        self._logged: dict[str, Metric] = {}
        for child in module.modules():
            if isinstance(child, Metric):
                child.reset()

    def add(self, name: str, value: Any, weight: int) -> None:
        """Add what was logged for a batch.

        Args:
            name: The key.
            value: A number, a tensor of one element, or a torchmetrics metric.
            weight: Examples in the batch.
        """
        if isinstance(value, Metric):
            self._logged[name] = value
            return
        double = isinstance(value, Tensor) and value.dtype == torch.float64
        kind = np.float64 if double else np.float32
        total, count = self._sums.get(name, (np.float32(0), 0))
        # float() is a call that a replay remembers; sums of tensors would be taken from it too.
        with np.errstate(all="ignore"):
            self._sums[name] = (total + kind(float(value)) * kind(weight), count + weight)

    def scores(self) -> dict[str, float]:
        """Return the mean over examples of each key, and what the metrics compute.

        Raises:
            ReplayError: If a metric holds what was not kept of a run.
        """
        found: dict[str, float] = {}
        for name, (total, count) in self._sums.items():
            with np.errstate(all="ignore"):
                found[name] = float(total / type(total)(count))
        for name, metric in self._logged.items():
            for state in metric._defaults:
                held = getattr(metric, state)
                if any(part.is_meta for part in (held if isinstance(held, list) else [held])):
                    raise ReplayError(f"the metric of {name} holds what was not kept")
            metric._computed = None  # it may have been asked before, in a part that is not run
            found[name] = float(metric.compute())
        return found


def plain_hooks(module: LightningModule) -> bool:
    """Tell whether a module does all its measuring in validation_step."""
    return not any(is_overridden(hook, module, LightningModule) for hook in HOOKS)


def step(module: LightningModule, batch: Any, index: int, tally: LoggedMetrics) -> None:
    """Run a module's validation_step on a batch, and add what it logs to a tally.

    Args:
        module: A copy of the user's module, in eval mode.
        batch: As the loader gives it.
        index: Its number.
        tally: Where to add.

    Raises:
        ScanError: If it logs in a way that cannot be summed up here.
    """
    batch = module.on_before_batch_transfer(batch, 0)
    batch = module.transfer_batch_to_device(batch, module.device, 0)
    batch = module.on_after_batch_transfer(batch, 0)
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
        tally.add(name, value, given or 0)

    def log_dict(values: Any, *_: Any, **options: Any) -> None:
        if isinstance(values, MetricCollection):
            values = dict(values.items(keep_base=False, copy_state=False))
        for name, value in values.items():
            log(name, value, **options)

    with replaced_attributes(module, log=log, log_dict=log_dict):
        module.validation_step(batch, index)
