"""Runs that no callback supports; each is refused by name before the training."""

from __future__ import annotations

from lightning.pytorch import Callback, LightningModule, Trainer

from lit_compress.errors import InvalidArgumentError

#: Strategies that split each weight over several devices, so that no process has all weights.
SHARDED = ("FSDPStrategy", "DeepSpeedStrategy", "ModelParallelStrategy")
#: Lightning's other package: the same code again, with classes that do not know each other.
OTHER = "pytorch_lightning"
#: What to do about it.
IMPORT = (
    "write `import lightning.pytorch as pl` in place of `import pytorch_lightning as pl`, for the "
    "Trainer, the LightningModule, callbacks and loggers"
)


def check_run(callback: Callback, trainer: Trainer, stage: str) -> None:
    """Check that a callback can work with a Trainer. Call it first in ``setup``.

    Args:
        callback: The callback.
        trainer: The run.
        stage: What is run: ``fit``, ``validate``, ``test`` or ``predict``.

    Raises:
        InvalidArgumentError: If the Trainer is of ``pytorch_lightning``, or splits each weight over
            several devices in a fit.
    """
    name = type(callback).__name__
    if not isinstance(trainer, Trainer):
        raise InvalidArgumentError(
            f"{name} is a callback of the package lightning.pytorch, and the Trainer is of "
            f"{package(type(trainer))}: {IMPORT}"
        )
    strategy = type(trainer.strategy)
    sharded = [base.__name__ for base in strategy.__mro__ if base.__name__ in SHARDED]
    if stage == "fit" and sharded:
        kind = f" (a {sharded[0]})" if strategy.__name__ != sharded[0] else ""
        raise InvalidArgumentError(
            f"{name} cannot run under {strategy.__name__}{kind}, which splits each weight over "
            "several devices: use strategy ddp"
        )


def check_module(module: object) -> None:
    """Check that a module is not of ``pytorch_lightning``.

    Args:
        module: The user's module.

    Raises:
        InvalidArgumentError: If it is.
    """
    kind = type(module)
    if not isinstance(module, LightningModule) and package(kind) == OTHER:
        raise InvalidArgumentError(
            f"{kind.__name__} is a LightningModule of the package {OTHER}, and the Trainer is of "
            f"lightning.pytorch: {IMPORT}"
        )


def package(kind: type) -> str:
    """Return the package of Lightning that a class is of, also if it is the user's own.

    Args:
        kind: The class.
    """
    roots = [base.__module__.partition(".")[0] for base in kind.__mro__]
    return next((root for root in roots if root in (OTHER, "lightning")), roots[0])
