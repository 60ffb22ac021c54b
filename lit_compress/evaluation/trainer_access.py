"""Typed access to attributes that Lightning sets on a Trainer from outside its class.

``Trainer.callbacks`` and the root folder are set by the callback connector, ``datamodule`` by the
data connector, and ``fast_dev_run`` and ``overfit_batches`` by ``lightning.pytorch.trainer.setup``.
The class itself declares none of them, so a type checker does not know them. This module is the
only place that reads or sets them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, TypeVar, cast

from lightning.pytorch import Callback, LightningDataModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import CombinedLoader
from torch import tensor

AnyCallback = TypeVar("AnyCallback")


class _Undeclared(Protocol):
    """The attributes that Lightning's Trainer has, and does not declare."""

    callbacks: list[Callback]
    datamodule: LightningDataModule | None
    fast_dev_run: bool | int
    overfit_batches: int | float
    profiler: Any
    _accelerator_connector: Any
    _checkpoint_connector: Any
    _default_root_dir: str


def callbacks(trainer: Trainer) -> list[Callback]:
    """Return the trainer's own list of callbacks, in the order in which Lightning calls them."""
    return _undeclared(trainer).callbacks


def callbacks_of_type(trainer: Trainer, kind: type[AnyCallback]) -> list[AnyCallback]:
    """Return the trainer's callbacks that are instances of a class or its subclasses, in order.

    Args:
        trainer: Any Trainer.
        kind: The class.
    """
    return [callback for callback in callbacks(trainer) if isinstance(callback, kind)]


def datamodule(trainer: Trainer) -> LightningDataModule | None:
    """Return the datamodule of the current run; None if the run was given loaders, or none yet."""
    return _undeclared(trainer).datamodule


def cluster_environment(trainer: Trainer) -> Any:
    """Return what started the processes of a run, such as Lightning's SLURMEnvironment."""
    return _undeclared(trainer)._accelerator_connector.cluster_environment


def checkpoint_connector(trainer: Trainer) -> Any:
    """Return what gives the parts of a checkpoint to their owners when a run goes on from it."""
    return _undeclared(trainer)._checkpoint_connector


def set_datamodule(trainer: Trainer, data: LightningDataModule | None) -> None:
    """Set what ``trainer.datamodule`` returns, without loading data from it."""
    _undeclared(trainer).datamodule = data


def is_fast_dev_run(trainer: Trainer) -> bool:
    """Tell whether the run only tries a few batches (``fast_dev_run``, true or their number)."""
    return bool(_undeclared(trainer).fast_dev_run)


def overfit_batches(trainer: Trainer) -> int | float:
    """Return ``overfit_batches``: a number of batches (int) or a share (float); 0 if not used."""
    return _undeclared(trainer).overfit_batches


def profiler(trainer: Trainer) -> Any:
    """Return the trainer's profiler."""
    return _undeclared(trainer).profiler


def set_root_dir(trainer: Trainer, folder: str) -> None:
    """Set what ``trainer.default_root_dir`` returns."""
    _undeclared(trainer)._default_root_dir = folder


def fit_loader(trainer: Trainer) -> CombinedLoader | None:
    """Return the loaders of the training loop; None before the loop has set them up."""
    return trainer.fit_loop._combined_loader


def validation_loader(trainer: Trainer) -> CombinedLoader | None:
    """Return the loaders of the validation, in a fit or alone; None before they are set up."""
    found = trainer.fit_loop.epoch_loop.val_loop._combined_loader
    return trainer.validate_loop._combined_loader if found is None else found


def fit_loaders(trainer: Trainer) -> list[Any]:
    """Return the loaders of the training loop, flattened; empty before the loop has set them up."""
    combined = fit_loader(trainer)
    return [] if combined is None else list(combined.flattened)


def publish(trainer: Trainer, name: str, value: float) -> None:
    """Log a metric of a validation after its epoch has ended, where a module cannot log any more.

    Checkpoints and loggers find it as they find one that the module logged.

    Args:
        trainer: The run.
        name: Name of the metric.
        value: Its value.
    """
    for metrics in (trainer.callback_metrics, trainer.logged_metrics):
        metrics[name] = tensor(value)
    if trainer.state.fn == TrainerFn.FITTING:
        log_scalars(trainer, {name: value})


def log_scalars(trainer: Trainer, scalars: Mapping[str, float]) -> None:
    """Give numbers to the loggers of a fit, at the step of the metrics that Lightning logs.

    Args:
        trainer: The run.
        scalars: The numbers by tag.
    """
    step = trainer.fit_loop.epoch_loop._batches_that_stepped
    for logger in trainer.loggers:
        logger.log_metrics({**scalars, "epoch": trainer.current_epoch}, step=step)


def _undeclared(trainer: Trainer) -> _Undeclared:
    return cast(_Undeclared, trainer)
