"""Run a validation_step without a Trainer's loops, and collect the metrics that it logs."""

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

#: Other hooks than validation_step in which a module may compute or log metrics.
HOOKS = (
    "on_validation_start",
    "on_validation_epoch_start",
    "on_validation_batch_start",
    "on_validation_batch_end",
    "on_validation_epoch_end",
    "on_validation_end",
)


class LoggedMetrics:
    """Averages logged values over batches, in the same float precision as Lightning.

    The torchmetrics of the module are reset, so use one instance at a time.

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
        """Add a value that was logged for a batch.

        Args:
            name: The key, such as ``val_loss``.
            value: A number, a tensor of one element, or a torchmetrics metric.
            weight: Number of examples in the batch; not used for a torchmetrics metric.
        """
        if isinstance(value, Metric):
            self._logged[name] = value
            return
        double = isinstance(value, Tensor) and value.dtype == torch.float64
        kind = np.float64 if double else np.float32
        total, count = self._sums.get(name, (np.float32(0), 0))
        # A sum of tensors would be a torch call, and a replay would return its recorded result. So
        # the sum is of numbers.
        with np.errstate(all="ignore"):
            self._sums[name] = (total + kind(float(value)) * kind(weight), count + weight)

    def scores(self) -> dict[str, float]:
        """Return a number for each key: the mean over examples, or the value of the torchmetric.

        Raises:
            ReplayError: If the state of a torchmetric depends on a tensor that a replay did not
                keep.
        """
        found: dict[str, float] = {}
        for name, (total, count) in self._sums.items():
            with np.errstate(all="ignore"):
                found[name] = float(total / type(total)(count))
        for name, metric in self._logged.items():
            for state in metric._defaults:
                held = getattr(metric, state)
                if any(part.is_meta for part in (held if isinstance(held, list) else [held])):
                    raise ReplayError(f"the metric of {name} depends on a tensor that was not kept")
            # Its cached value may be from the recording, if the replay skipped the update.
            metric._computed = None
            found[name] = float(metric.compute())
        return found


def plain_hooks(module: LightningModule) -> bool:
    """Tell whether a module overrides no validation hook except validation_step."""
    return not any(is_overridden(hook, module, LightningModule) for hook in HOOKS)


def step(module: LightningModule, batch: Any, index: int, tally: LoggedMetrics) -> None:
    """Run the validation_step of a module on a batch, and collect the values that it logs.

    Args:
        module: A copy of the user's module, in eval mode.
        batch: The batch as the loader returns it.
        index: Number of the batch.
        tally: Collects the values.

    Raises:
        ScanError: If a value is logged with a ``reduce_fx`` other than the mean, or with
            ``on_epoch=False``.
    """
    precision = module.trainer.precision_plugin
    batch = module._on_before_batch_transfer(precision.convert_input(batch), dataloader_idx=0)
    batch = module._apply_batch_transfer_handler(batch, module.device, dataloader_idx=0)
    size: list[int] = []

    def log(name: str, value: Any, *_: Any, **options: Any) -> None:
        reduce = options.get("reduce_fx", "mean")
        if reduce not in ("mean", torch.mean) or options.get("on_epoch") is False:
            raise ScanError(f"{name} is logged with reduce_fx={reduce!r} or on_epoch=False")
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

    logging = replaced_attributes(module, log=log, log_dict=log_dict)
    with logging, precision.val_step_context():
        module.validation_step(batch, index)
