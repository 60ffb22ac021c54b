"""What channels cannot be removed beside: refused by name, before anything is trained."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelPruning
from lightning.pytorch.utilities import rank_zero_warn
from torch.optim import Optimizer

from lit_compress.callbacks._pruning.base import PruningCallback
from lit_compress.errors import InvalidArgumentError
from lit_compress.pruning.channels.surgery import WHOLE


def check_callbacks(pruner: PruningCallback, trainer: Trainer, removing: bool = True) -> None:
    """Make sure that a callback can remove channels in a run.

    Args:
        pruner: The callback.
        trainer: The run.
        removing: Whether channels are removed, or only held at zero.

    Raises:
        InvalidArgumentError: If another callback or the launcher stands in the way.
    """
    name = type(pruner).__name__
    for other in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(other, (PruningCallback, ModelPruning)) and other is not pruner:
            raise InvalidArgumentError(
                f"{name} cannot run beside {type(other).__name__}: both would decide "
                "over the same weights; prune in two fits, the second with init_from"
            )
        if isinstance(other, EarlyStopping) and other.monitor == f"pruned/{pruner.monitor}":
            raise InvalidArgumentError(
                f"EarlyStopping cannot watch {other.monitor}, which is NaN until the target is "
                f"reached and would end the run at once: let it watch {pruner.monitor}"
            )
    if removing and type(trainer.strategy.launcher).__name__ == "_MultiProcessingLauncher":
        raise InvalidArgumentError(
            f"{name} cannot run in spawned or forked processes, from which the module "
            "does not come back in its new shapes: use strategy ddp"
        )


def check_optimizers(name: str, optimizers: Iterable[Optimizer]) -> None:
    """Make sure that optimizers can go on once channels are removed.

    Args:
        name: Name of the callback that removes them.
        optimizers: The optimizers.

    Raises:
        InvalidArgumentError: If one keeps a single state of all parameters.
    """
    for optimizer in optimizers:
        kind = type(optimizer).__name__
        if kind in WHOLE:
            raise InvalidArgumentError(
                f"{name} cannot cut the state of {kind}, which is of all parameters "
                'together: set shrink to "end", or use SGD, Adam, AdamW, RMSprop or Adagrad'
            )


def warn_clamped(name: str, layers: Sequence[str], min_channels: int) -> None:
    """Warn of layers that keep more than their share.

    Args:
        name: Name of the callback that removes channels.
        layers: Their names.
        min_channels: Channels that each layer keeps at least.
    """
    if layers:
        rank_zero_warn(
            f"{name}: {len(layers)} layers will keep more than their share, since min_channels "
            f"({min_channels}), and two of each group of a grouped convolution, stay: "
            f"{', '.join(layers[:4])}" + (" ..." if len(layers) > 4 else "")
        )
