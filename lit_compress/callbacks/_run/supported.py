"""Runs that no callback supports; each is refused by name before the training."""

from __future__ import annotations

from lightning.pytorch import Callback, LightningModule, Trainer

from lit_compress.errors import InvalidArgumentError

#: Strategies that split each weight over several devices, so that no process has all weights.
SHARDED = ("FSDPStrategy", "DeepSpeedStrategy", "ModelParallelStrategy")
#: Lightning's launcher of processes that are spawned or forked from the one that called ``fit``.
FROM_PARENT = "_MultiProcessingLauncher"
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
        InvalidArgumentError: If the Trainer is of ``pytorch_lightning``, splits each weight over
            several devices in a fit, or fits in processes that are spawned or forked.
    """
    name = type(callback).__name__
    if not isinstance(trainer, Trainer):
        raise InvalidArgumentError(
            f"{name} is a callback of the package lightning.pytorch, and the Trainer is of "
            f"{package(type(trainer))}: {IMPORT}"
        )
    if stage == "fit":
        check_strategy(name, trainer)


def check_strategy(name: str, trainer: Trainer) -> None:
    """Check that each process of a run has all weights, and that its results are not lost.

    Args:
        name: Name of the callback or verb, for the error.
        trainer: The run.

    Raises:
        InvalidArgumentError: If the strategy splits weights over several devices, or its processes
            are spawned or forked: those give back the weights in their old shapes, and nothing
            that a callback knows at the end, such as the path of an artefact.
    """
    strategy = type(trainer.strategy)
    sharded = [base.__name__ for base in strategy.__mro__ if base.__name__ in SHARDED]
    if sharded:
        kind = f" (a {sharded[0]})" if strategy.__name__ != sharded[0] else ""
        raise InvalidArgumentError(
            f"{name} cannot run under {strategy.__name__}{kind}, which splits each weight over "
            "several devices: use strategy ddp"
        )
    launcher = type(trainer.strategy.launcher)
    if any(base.__name__ == FROM_PARENT for base in launcher.__mro__):
        raise InvalidArgumentError(
            f"{name} cannot run in spawned or forked processes (ddp_spawn, ddp_fork, "
            "ddp_notebook): its results and new shapes do not come back from them; use strategy "
            "ddp in a script, or one device in a notebook"
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
