"""The order of callbacks: blocks go before filters, so that filters are ranked in what is left."""

from __future__ import annotations

from lightning.pytorch import Trainer

from lit_compress.callbacks._pruning.base import PruningCallback, pruning_callbacks
from lit_compress.errors import InvalidArgumentError
from lit_compress.evaluation.trainer_access import callbacks


def check_order(pruner: PruningCallback, trainer: Trainer) -> None:
    """Check that all blocks are removed before another callback prunes for the first time.

    Args:
        pruner: The callback that removes blocks.
        trainer: The run.

    Raises:
        InvalidArgumentError: If they are not.
    """
    name, order = type(pruner).__name__, callbacks(trainer)
    for other in pruning_callbacks(trainer):
        if other is pruner:
            continue
        kind = type(other).__name__
        if pruner.contract:
            raise InvalidArgumentError(
                f"{name} with max_drop cannot run together with {kind}, since steps that wait may "
                f"come after those of {kind}: give max_drop to {kind} alone, or prune in two fits"
            )
        last, first = pruner.last_epoch, other.first_epoch
        if last > first or (last == first and order.index(pruner) > order.index(other)):
            raise InvalidArgumentError(
                f"{name} removes the last blocks at epoch {last}, and {kind} begins at epoch "
                f"{first}: let it begin later (schedule.first), set schedule.last of {name} "
                f"earlier, and name {name} before it among the callbacks if the epochs are equal"
            )
