"""Measuring a network by the user's own validation_step, aside from the run in progress."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from math import isfinite, sqrt
from typing import Any

import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers.logger import DummyLogger
from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves
from torchmetrics import Metric as TorchMetric
from typing_extensions import override

from lit_compress.artifact import Metric
from lit_compress.errors import InvalidArgumentError
from lit_compress.evaluation.loaders import unmoved

#: Arguments of a call, by position and by name.
Call = tuple[tuple[Any, ...], dict[str, Any]]

NOISY = ("lightning.pytorch", "lightning.fabric")
COMPILED = ("forward", "training_step", "validation_step", "test_step", "predict_step")


class RunContext(Callback):
    """Shows a second Trainer's validation what the first one's would see: data, optimizers, epoch.

    Args:
        trainer: The run in progress.
    """

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer

    @override
    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        trainer.datamodule = self.trainer.datamodule  # type: ignore[attr-defined]
        trainer.strategy.optimizers = self.trainer.strategy.optimizers
        trainer.strategy.lr_scheduler_configs = self.trainer.strategy.lr_scheduler_configs
        # After the fit the current epoch is one past the last.
        epoch, last = self.trainer.current_epoch, self.trainer.max_epochs or 0
        trainer.fit_loop.epoch_progress.current.completed = (
            min(epoch, last - 1) if last > 0 else epoch
        )

    @override
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # What the second Trainer holds when it ends, it would take down with it.
        trainer.datamodule = None  # type: ignore[attr-defined]
        trainer.strategy.optimizers = []
        trainer.strategy.lr_scheduler_configs = []


def validate(
    trainer: Trainer, module: LightningModule, loaders: list[Any], limit: int | float | None = None
) -> dict[str, float]:
    """Run the module's own validation on the CPU and return the metrics it logged.

    Args:
        trainer: The run in progress, for its limit of batches.
        module: A copy of the user's module; it is given a trainer of its own.
        loaders: What to validate on.
        limit: Batches at most; default as the run's.
    """
    module._metric_attributes = None
    for child in module.modules():
        if isinstance(child, TorchMetric):
            child.distributed_available_fn = _alone
            child.reset()
    with quiet(), isolate_rng(), unmoved(loaders):
        aside = Trainer(
            accelerator="cpu",
            devices=1,
            logger=DummyLogger(),
            callbacks=[RunContext(trainer)],
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            inference_mode=False,  # what is recorded here is exported later
            limit_val_batches=trainer.limit_val_batches if limit is None else limit,
            plugins=[LightningEnvironment()],
        )
        aside.validate(module, loaders, verbose=False)
    return {name: float(value) for name, value in aside.callback_metrics.items()}


def measured(
    trainer: Trainer,
    module: LightningModule,
    loaders: list[Any],
    monitor: str,
    target: nn.Module,
    runner: Callable[..., Any] | None = None,
) -> Metric | None:
    """Return the monitored metric of a module, or of a runner in the place of its network.

    Args:
        trainer: The run in progress.
        module: A copy of the user's module.
        loaders: What to validate on.
        monitor: Key that the module's ``validation_step`` logs.
        target: The network in ``module`` that is measured.
        runner: Takes the place of the network's forward; None measures the network itself.

    Returns:
        The metric, or None (with a warning) if it is not a finite number.

    Raises:
        InvalidArgumentError: If the key is not logged, or validation never calls the network.
    """
    forward = target.forward
    seen = 0

    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal seen
        inputs = [value for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)]
        seen += len(inputs[0]) if inputs else 0
        return runner(*args, **kwargs) if runner else forward(*args, **kwargs)

    own = target.__dict__.get("forward")
    target.forward = counted
    try:
        metrics = validate(trainer, module, loaders)
    finally:
        if own is None:
            del target.forward
        else:
            target.forward = own
    check_monitor(monitor, metrics)
    if not seen:
        raise InvalidArgumentError(
            f"validation_step of {type(module).__name__} never calls the network that is exported: "
            "name the part that it calls by submodule"
        )
    value = metrics[monitor]
    if not isfinite(value):
        rank_zero_warn(f"{monitor} is {value}, so the card has none")
        return None
    return Metric(monitor, value, "val", seen, accuracy_interval(monitor, value, seen))


def check_monitor(monitor: str, metrics: Iterable[str]) -> None:
    """Make sure that a key is among the logged ones.

    Raises:
        InvalidArgumentError: If it is not.
    """
    names = sorted(metrics)
    if monitor not in names:
        raise InvalidArgumentError(
            f"monitor {monitor!r} is not logged by validation_step; it logs: "
            f"{', '.join(names) or 'nothing'}"
        )


def lower_is_better(name: str) -> bool:
    """Tell by a metric's name whether less of it is better."""
    return any(word in name.lower() for word in ("loss", "err", "mse", "mae", "perplex"))


def accuracy_interval(name: str, value: float, n: int) -> tuple[float, float] | None:
    """Return the 95 % Wilson interval of an accuracy over ``n`` images, None of another metric."""
    hits = value * n
    if "acc" not in name.lower() or not 0 <= value <= 1 or abs(hits - round(hits)) > 0.02:
        return None
    z = 1.959964
    centre = (value + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * sqrt(value * (1 - value) / n + z * z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def clone(trainer: Trainer, pl_module: LightningModule) -> LightningModule:
    """Return a copy of a module on the CPU, in eval mode, free of the run in progress.

    What the run is made of is not copied along, where the module refers to it: under the command
    line its scheduler's constructor leads to the strategy, and so to DDP's wrapper, which cannot
    be.
    """
    run = [trainer, trainer.strategy, trainer.datamodule, *trainer.callbacks, *trainer.optimizers]  # type: ignore[attr-defined]
    run += [wrapper for wrapper in (trainer.strategy.model,) if wrapper is not pl_module]
    shared: dict[int, Any] = {id(part): part for part in run}
    attributes = [value for child in pl_module.modules() for value in vars(child).values()]
    for value in attributes:
        if isinstance(value, Tensor) and value.grad_fn is not None:
            shared[id(value)] = value.detach()
    try:
        made = copy.deepcopy(pl_module, dict(shared))
    except (TypeError, RuntimeError):
        shared |= {id(value): value for value in attributes if not _can_be_copied(value, shared)}
        made = copy.deepcopy(pl_module, shared)
    if getattr(made, "_compiler_ctx", None) is not None:
        # Lightning puts compiled methods on the module, which would call the original's.
        made._compiler_ctx = None
        for name in COMPILED:
            vars(made).pop(name, None)
    # Half and double precision are the run's; what is exported and measured here is float.
    return made.cpu().float().eval()


def _can_be_copied(value: Any, shared: dict[int, Any]) -> bool:
    try:
        copy.deepcopy(value, dict(shared))
    except (TypeError, RuntimeError):
        return False
    return True


@contextmanager
def quiet() -> Iterator[None]:
    """Hold back what a second Trainer says of itself; errors are raised all the same."""
    loggers = [
        logging.getLogger(name)
        for name in list(logging.Logger.manager.loggerDict)
        if name.startswith(NOISY)
    ]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _alone() -> bool:
    return False


def first_inputs(
    trainer: Trainer, module: LightningModule, loaders: list[Any], target: nn.Module, batches: int
) -> list[Call]:
    """Return the arguments of the first calls of a network during validation."""
    inputs: list[Call] = []

    def record(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        inputs.append((args, kwargs))

    handle = target.register_forward_pre_hook(record, with_kwargs=True)
    try:
        with torch.no_grad():
            validate(trainer, module, loaders, batches)
    finally:
        handle.remove()
    return inputs[:batches]
