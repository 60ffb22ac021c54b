"""A dry run of the user's steps on a pruned copy, so that errors come before the training."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lightning.pytorch import LightningModule, Trainer
from torch.optim import Optimizer

from lit_compress.errors import InvalidArgumentError
from lit_compress.evaluation.loaders import copied, training_loaders, validation_loaders
from lit_compress.evaluation.run_view.copies import clone, clone_with
from lit_compress.evaluation.run_view.training import train
from lit_compress.evaluation.validate import validate
from lit_compress.pruning import apply
from lit_compress.pruning.channels.plan import Plan

#: Prunes a copy of a module, and the optimizers of the copy.
Prune = Callable[[LightningModule, Sequence[Optimizer]], None]


def dry_run(trainer: Trainer, pl_module: LightningModule, plan: Plan) -> None:
    """Run the user's validation and training steps on a pruned copy, a batch each.

    Args:
        trainer: The run in progress.
        pl_module: The user's module; nothing is changed in it.
        plan: The channels to remove.

    Raises:
        InvalidArgumentError: If a step fails on the pruned copy only.
    """
    failure = failing_step(trainer, pl_module, lambda copy, by: apply(plan, copy, *by))
    if failure is not None:
        step, error = failure
        raise _refusal(step, pl_module, error) from error


def failing_step(
    trainer: Trainer, pl_module: LightningModule, prune: Prune
) -> tuple[str, Exception] | None:
    """Return the step of the user's that fails on a pruned copy only, and its error.

    Training is left out where the data is a stream that cannot be copied: its batches would be
    lost to the run.

    Args:
        trainer: The run in progress.
        pl_module: The user's module; nothing is changed in it.
        prune: Prunes the copy.

    Returns:
        The name of the step and the error; None if none fails.

    Raises:
        Exception: If validation fails on the whole network too.
    """
    if (failure := _failure_in_validation(trainer, pl_module, prune)) is not None:
        if (own := _failure_in_validation(trainer, pl_module, _unchanged)) is not None:
            raise own  # it fails on the whole network too
        return "validation_step", failure
    failure = _failure_in_training(trainer, pl_module, prune)
    if failure is not None and _failure_in_training(trainer, pl_module, _unchanged) is None:
        return "training_step", failure
    return None


def _unchanged(copy: LightningModule, optimizers: Sequence[Optimizer]) -> None:
    """Leave the copy as it is."""


def _failure_in_validation(
    trainer: Trainer, pl_module: LightningModule, prune: Prune
) -> Exception | None:
    """Return the error of a validation step on a pruned copy, None if there is none."""
    loaders = validation_loaders(trainer)
    if not loaders:
        return None
    copy = clone(trainer, pl_module)
    prune(copy, ())
    try:
        validate(trainer, copy, loaders, 1)
    except Exception as error:  # compared with the whole network
        return error
    return None


def _failure_in_training(
    trainer: Trainer, pl_module: LightningModule, prune: Prune
) -> Exception | None:
    """Return the error of a training step on a pruned copy, None if there is none."""
    loaders = [copied(loader) for loader in training_loaders(trainer)]
    if not loaders or None in loaders or not trainer.optimizers:
        return None
    copy, optimizers = clone_with(trainer, pl_module, trainer.optimizers)
    prune(copy, optimizers)
    try:
        train(trainer, copy, optimizers, loaders)
    except Exception as error:  # compared with the whole network
        return error
    return None


def _refusal(step: str, pl_module: LightningModule, error: Exception) -> InvalidArgumentError:
    return InvalidArgumentError(
        f"{step} of {type(pl_module).__name__} fails once channels are removed "
        f"({type(error).__name__}: {error}), and not before: the step, or a hook around it, uses "
        "weights or sizes that the forward does not, such as a second head, a moving average of "
        "the weights, or a number of channels in the code; exclude the layers before them, or name "
        "the part to prune by submodule"
    )
