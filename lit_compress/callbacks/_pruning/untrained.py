"""Weights that are not trained now, and perhaps later (Lightning's BaseFinetuning)."""

from __future__ import annotations

from collections.abc import Collection

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import BackboneFinetuning, BaseFinetuning
from torch.optim.swa_utils import AveragedModel

from lit_compress.callbacks._pruning.base import PruningCallback
from lit_compress.errors import InvalidArgumentError
from lit_compress.evaluation.trainer_access import callbacks, callbacks_of_type
from lit_compress.pruning.selection.eligible import untrained_now


def never_trained(trainer: Trainer, module: LightningModule) -> frozenset[str]:
    """Return the names of the parameters that are not trained, and will not be in this run.

    A finetuning callback trains some of them later. Lightning's own one trains the backbone; which
    a user's own one trains is not known, so all count. An average of weights is never trained.

    Args:
        trainer: The run.
        module: The user's module.
    """
    untrained = untrained_now(module)
    for callback in callbacks_of_type(trainer, BaseFinetuning):
        untrained = frozenset(name for name in untrained if not _trains_later(callback, name))
    averages = [name for name, part in module.named_modules() if isinstance(part, AveragedModel)]
    names = [name for name, _ in module.named_parameters()]
    return untrained.union(n for n in names if any(n.startswith(f"{part}.") for part in averages))


def check_trained_in_time(
    pruner: PruningCallback, trainer: Trainer, module: LightningModule, names: Collection[str]
) -> None:
    """Check that weights are trained by the last pruning step, as far as this is known.

    Args:
        pruner: The pruning callback.
        trainer: The run.
        module: The user's module.
        names: Names of the weights that it will prune.

    Raises:
        InvalidArgumentError: If some are trained later only.
    """
    found = callbacks_of_type(trainer, BaseFinetuning)
    known = [callback for callback in found if isinstance(callback, BackboneFinetuning)]
    if not known or len(known) < len(found):
        return
    untrained = untrained_now(module) & frozenset(names)
    late = sorted(name for name in untrained if _trains_later(known[0], name))
    if not late:
        return
    order = callbacks(trainer)
    epoch = max(
        callback.unfreeze_backbone_at_epoch + (order.index(callback) > order.index(pruner))
        for callback in known
    )
    if pruner.last_epoch < epoch:
        raise InvalidArgumentError(
            f"{type(pruner).__name__} prunes for the last time at epoch {pruner.last_epoch}, and "
            f"BackboneFinetuning trains {late[0]} ({len(late)} weights) from epoch {epoch} on: set "
            f"schedule.last to {epoch} at least, unfreeze_backbone_at_epoch earlier, or exclude "
            "these layers"
        )


def _trains_later(callback: Callback, name: str) -> bool:
    return not isinstance(callback, BackboneFinetuning) or name.startswith("backbone.")
