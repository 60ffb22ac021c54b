"""Callbacks that keep copies of the weights, such as averages of a user's own."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.connectors.logger_connector.result import _ResultCollection
from lightning.pytorch.trainer.states import RunningStage
from torch import Tensor, nn

from lit_compress.errors import InvalidArgumentError
from lit_compress.evaluation.dry_run import Prune
from lit_compress.evaluation.run_view.copies import attached, clone_with, quiet
from lit_compress.evaluation.run_view.trainer import TrainerView
from lit_compress.evaluation.trainer_access import callbacks

#: Hooks at which a callback may update its copy; each gets what Lightning gives it.
HOOKS: dict[str, tuple[Any, ...]] = {
    "on_train_batch_start": (None, 0),
    "on_before_zero_grad": (None,),
    "on_train_batch_end": (None, None, 0),
    "on_train_epoch_end": (),
    "on_validation_start": (),
    "on_validation_end": (),
}
#: Packages whose callbacks are known.
KNOWN = ("lightning.", "pytorch_lightning.", "lit_compress.")


def check_weight_copies(trainer: Trainer, module: LightningModule, prune: Prune) -> None:
    """Check that no other callback keeps a copy of the weights that it needs in their old shapes.

    The hooks of a copy of the callback are called with a pruned copy of the module. A callback
    fails if its copy of the weights does not fit any more.

    Args:
        trainer: The run in progress.
        module: The user's module.
        prune: Prunes a copy of the module.

    Raises:
        InvalidArgumentError: If one does.
    """
    shapes = {tuple(parameter.shape) for parameter in module.parameters() if parameter.dim() > 1}
    for callback in callbacks(trainer):
        if type(callback).__module__.startswith(KNOWN):
            continue
        found = _holds(callback, module, shapes)
        if found and (hook := _failing_hook(trainer, module, callback, prune)):
            raise InvalidArgumentError(
                f"{type(callback).__name__} keeps a copy of the weights ({found}), and its {hook} "
                "fails once parts of the network are removed: keep the average as a part of the "
                "LightningModule, which is then pruned along, or average in a later fit that "
                "starts from the pruned checkpoint"
            )


def _holds(callback: Callback, module: LightningModule, shapes: set[tuple[int, ...]]) -> str:
    """Return the attribute in which a callback has half of the module's weights; empty if none."""
    own = {id(tensor) for tensor in (*module.parameters(), *module.buffers())}
    for name, value in vars(callback).items():
        tensors = [tensor for tensor in _tensors(value) if id(tensor) not in own]
        if 2 * len(shapes & {tuple(tensor.shape) for tensor in tensors}) > len(shapes):
            return name
    return ""


def _tensors(value: Any, depth: int = 3) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, nn.Module):
        yield from value.parameters()
    elif depth and isinstance(value, Mapping):
        for part in value.values():
            yield from _tensors(part, depth - 1)
    elif depth and isinstance(value, (list, tuple)):
        for part in value:
            yield from _tensors(part, depth - 1)
    elif depth and type(value).__module__ != "builtins" and not isinstance(value, (type, Trainer)):
        yield from _tensors(getattr(value, "__dict__", {}), depth - 1)


def _failing_hook(
    trainer: Trainer, module: LightningModule, callback: Callback, prune: Prune
) -> str:
    """Return the first hook that fails on a pruned copy and not on a whole one."""
    whole, pruned = (_failures(trainer, module, callback, each) for each in (None, prune))
    return next((hook for hook in HOOKS if hook in pruned and hook not in whole), "")


def _failures(
    trainer: Trainer, module: LightningModule, callback: Callback, prune: Prune | None
) -> set[str]:
    other, optimizers = clone_with(trainer, module, trainer.optimizers)
    shared: dict[int, Any] = {id(trainer): trainer, id(module): other}
    try:
        twin = copy.deepcopy(callback, shared)
    except Exception:  # it holds a file or a connection: it cannot be tried
        return set()
    if prune is not None:
        prune(other, optimizers)
    results = _ResultCollection(training=True)
    failed = set()
    with quiet():
        view = TrainerView(trainer, other, RunningStage.TRAINING, results, optimizers=optimizers)
        with attached(other, view):
            for hook, given in HOOKS.items():
                if getattr(type(callback), hook) is getattr(Callback, hook):
                    continue
                try:
                    getattr(twin, hook)(view, other, *given)
                except Exception:  # compared with the same hook on the whole network
                    failed.add(hook)
    return failed
