"""A dry run of the user's steps on a pruned copy, so that errors come before the training."""

from __future__ import annotations

from contextlib import suppress
from inspect import signature
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader, IterableDataset

from lit_compress.errors import InvalidArgumentError
from lit_compress.evaluation.loaders import training_loaders, validation_loaders
from lit_compress.evaluation.validate import clone, validate
from lit_compress.pruning import apply
from lit_compress.pruning.channels.plan import Plan


def dry_run(
    trainer: Trainer, pl_module: LightningModule, plan: Plan, training: bool = True
) -> None:
    """Run the user's validation and training steps on a pruned copy, a batch each.

    Args:
        trainer: The run in progress.
        pl_module: The user's module; nothing is changed in it.
        plan: The channels to remove.
        training: Whether to run the training step too.

    Raises:
        InvalidArgumentError: If a step fails on the pruned copy only.
    """
    if loaders := validation_loaders(trainer):
        copy = clone(trainer, pl_module)
        apply(plan, copy)
        try:
            validate(trainer, copy, loaders, 1)
        except Exception as error:
            raise _refusal("validation_step", pl_module, error) from error
    if not training or not _can_try_training(trainer, pl_module):
        return
    failure = _failure_in_training(trainer, pl_module, plan)
    if failure is not None and _failure_in_training(trainer, pl_module, Plan()) is None:
        raise _refusal("training_step", pl_module, failure) from failure


def _can_try_training(trainer: Trainer, pl_module: LightningModule) -> bool:
    """Tell whether a training step can be tried without effects on the run and its data."""
    taken = signature(pl_module.training_step).parameters
    return (
        pl_module.automatic_optimization
        and trainer.world_size == 1
        and "dataloader_iter" not in taken
        and all(
            isinstance(getattr(loader, "loader", loader), DataLoader)
            and not isinstance(getattr(loader, "loader", loader).dataset, IterableDataset)
            for loader in training_loaders(trainer)
        )
    )


def _failure_in_training(
    trainer: Trainer, pl_module: LightningModule, plan: Plan
) -> Exception | None:
    """Return the error of a training step on a pruned copy, None if there is none."""
    copy = clone(trainer, pl_module)
    apply(plan, copy)
    training_step = copy.training_step
    arguments = len(signature(training_step).parameters)
    failures: list[Exception] = []

    def step(batch: Any, batch_idx: int) -> None:
        copy.train()
        try:
            training_step(*(batch, batch_idx)[:arguments])
        except Exception as error:
            failures.append(error)

    copy.validation_step = step  # type: ignore[method-assign]
    # Hooks around validation may fail without its outputs; only the step's own error counts.
    with suppress(Exception):
        validate(trainer, copy, training_loaders(trainer)[:1], 1)
    return failures[0] if failures else None


def _refusal(step: str, pl_module: LightningModule, error: Exception) -> InvalidArgumentError:
    return InvalidArgumentError(
        f"{step} of {type(pl_module).__name__} fails once channels are removed "
        f"({type(error).__name__}: {error}): it uses a layer that its forward does not use; "
        "exclude the layers before it, or name the part to prune by submodule"
    )
