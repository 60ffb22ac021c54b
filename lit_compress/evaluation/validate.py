"""Running the user's own validation on a copy of the module, while a fit is in progress."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers.logger import DummyLogger
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor
from torchmetrics import Metric as TorchMetric
from typing_extensions import override

from lit_compress.evaluation.loaders import unmoved
from lit_compress.evaluation.trainer_access import callbacks, datamodule, set_datamodule

#: Loggers that tell about a Trainer.
NOISY = ("lightning.pytorch", "lightning.fabric")
#: Methods that Lightning replaces on an instance when it compiles a module.
COMPILED = ("forward", "training_step", "validation_step", "test_step", "predict_step")


class _RunContext(Callback):
    """Shows the validation of a second Trainer the data, optimizers and epoch of the first one.

    Args:
        trainer: The run in progress.
    """

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer

    @override
    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        set_datamodule(trainer, datamodule(self.trainer))
        trainer.strategy.optimizers = self.trainer.strategy.optimizers
        trainer.strategy.lr_scheduler_configs = self.trainer.strategy.lr_scheduler_configs
        # After the fit the current epoch is one past the last.
        epoch, last = self.trainer.current_epoch, self.trainer.max_epochs or 0
        trainer.fit_loop.epoch_progress.current.completed = (
            min(epoch, last - 1) if last > 0 else epoch
        )

    @override
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # At its end the second Trainer would tear these down.
        set_datamodule(trainer, None)
        trainer.strategy.optimizers = []
        trainer.strategy.lr_scheduler_configs = []


def validate(
    trainer: Trainer, module: LightningModule, loaders: list[Any], limit: int | float | None = None
) -> dict[str, float]:
    """Run the module's own validation on the CPU, and return the metrics that it logged.

    Args:
        trainer: The run in progress.
        module: A copy of the user's module.
        loaders: Loaders to validate on.
        limit: Largest number of batches. Default: as in the run.
    """
    module._metric_attributes = None
    for child in module.modules():
        if isinstance(child, TorchMetric):
            child.distributed_available_fn = _alone
            child.reset()
    with quiet(), isolate_rng(), unmoved(loaders):
        second = Trainer(
            accelerator="cpu",
            devices=1,
            logger=DummyLogger(),
            callbacks=[_RunContext(trainer)],
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            inference_mode=False,  # recorded tensors are exported later
            limit_val_batches=trainer.limit_val_batches if limit is None else limit,
            plugins=[LightningEnvironment()],
        )
        second.validate(module, loaders, verbose=False)
    return {name: float(value) for name, value in second.callback_metrics.items()}


def clone(trainer: Trainer, pl_module: LightningModule) -> LightningModule:
    """Return a copy of a module on the CPU, in eval mode and in single precision.

    Objects of the run that the module refers to are shared, not copied: under the command line the
    constructor of its scheduler refers to the strategy, and so to DDP's wrapper, which cannot be
    copied.

    Args:
        trainer: The run in progress.
        pl_module: The user's module.
    """
    run: list[Any] = [trainer, trainer.strategy, datamodule(trainer)]
    run += [*callbacks(trainer), *trainer.optimizers]
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
        # Lightning sets compiled methods on the instance; the copy's would call the original's.
        made._compiler_ctx = None
        for name in COMPILED:
            vars(made).pop(name, None)
    # The run may have half or double precision; export and measurement are in single precision.
    return made.cpu().float().eval()


def _can_be_copied(value: Any, shared: dict[int, Any]) -> bool:
    try:
        copy.deepcopy(value, dict(shared))
    except (TypeError, RuntimeError):
        return False
    return True


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the messages and warnings of a second Trainer; errors are still raised."""
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
