"""What channels cannot be removed together with, and targets that cannot be reached.

All is refused by name before anything is trained.
"""

from __future__ import annotations

from collections.abc import Sequence

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelPruning
from lightning.pytorch.utilities import rank_zero_warn
from torch import nn

from lit_compress.callbacks._pruning.base import PruningCallback
from lit_compress.errors import InvalidArgumentError
from lit_compress.evaluation.trainer_access import callbacks
from lit_compress.pruning.selection.analysis import parameter_names
from lit_compress.pruning.selection.budget import Of, Selection
from lit_compress.pruning.selection.state import PruningState


def check_callbacks(pruner: PruningCallback, trainer: Trainer) -> None:
    """Check that no other callback prevents the removal of channels.

    Args:
        pruner: The pruning callback.
        trainer: The run.

    Raises:
        InvalidArgumentError: If one does.
    """
    name = type(pruner).__name__
    for other in callbacks(trainer):
        if isinstance(other, (PruningCallback, ModelPruning)) and other is not pruner:
            if _are_apart(pruner, other) or _are_in_order(pruner, other):
                continue
            raise InvalidArgumentError(
                f"{name} cannot run together with {type(other).__name__}: both would prune the "
                "same weights; name a part of its own for each by submodule, as for the two "
                "networks of a GAN, or prune in two fits, the second with init_from"
            )
        if isinstance(other, EarlyStopping) and other.monitor == f"pruned/{pruner.monitor}":
            raise InvalidArgumentError(
                f"EarlyStopping cannot watch {other.monitor}, which is NaN until the target is "
                f"reached and would end the run at once: let it watch {pruner.monitor}"
            )


def _are_in_order(one: PruningCallback, other: PruningCallback | ModelPruning) -> bool:
    """Tell whether one callback removes blocks, and the other can prune what is left."""
    pair = (one, other)
    return any(
        isinstance(first, PruningCallback)
        and isinstance(then, PruningCallback)
        and first.removes_blocks
        and then.follows_blocks
        for first, then in (pair, pair[::-1])
    )


def _are_apart(one: PruningCallback, other: PruningCallback | ModelPruning) -> bool:
    """Tell whether two callbacks remove channels of two parts, none of them inside the other."""
    names = [getattr(callback, "submodule", None) for callback in (one, other)]
    if not all(names):
        return False
    first, second = (f"{name}." for name in names)
    return not first.startswith(second) and not second.startswith(first)


def check_target(
    module: nn.Module, state: PruningState, selection: Selection, of: Of, goal: float
) -> None:
    """Check that the selection for the end of a schedule reaches its target.

    Args:
        module: The network.
        state: Its pruning state.
        selection: The selection for the end of the schedule.
        of: What the target is a share of. For filters, layers that keep more are only warned of.
        goal: The target.

    Raises:
        InvalidArgumentError: If so many of the parameters or MACs cannot be removed.
    """
    if selection.clamped and of != "filters":
        raise InvalidArgumentError(
            f"target {goal:g} of {of} cannot be reached: at most "
            f"{_share(module, state, selection, of):.3f} can be removed; lower target, or let "
            "more layers lose channels (include, exclude, min_channels, round_to)"
        )


def warn_clamped(name: str, layers: Sequence[str], min_channels: int) -> None:
    """Warn of layers that keep more than their share.

    Args:
        name: Name of the callback that removes channels.
        layers: Names of the layers.
        min_channels: Smallest number of channels that a layer keeps.
    """
    if layers:
        rank_zero_warn(
            f"{name}: {len(layers)} layers will keep more than their share, since at least "
            f"min_channels ({min_channels}), and two channels of each group of a grouped "
            f"convolution, are kept: {', '.join(layers[:4])}" + (" ..." if len(layers) > 4 else "")
        )


def warn_off_target(
    name: str,
    module: nn.Module,
    state: PruningState,
    selection: Selection,
    of: Of,
    *,
    goal: float,
    round_to: int,
) -> None:
    """Warn if what can be removed is far from the target, above or below.

    Args:
        name: Name of the callback that removes channels.
        module: The network.
        state: Its pruning state.
        selection: The selection for the end of the schedule.
        of: What the target is a share of.
        goal: The target.
        round_to: The number of channels that a layer keeps is a multiple of this.
    """
    share = _share(module, state, selection, of)
    if abs(share - goal) <= max(0.1 * goal, 0.02) or (selection.clamped and share < goal):
        return
    why = f"layers keep multiples of {round_to} filters" if round_to > 1 else ""
    rank_zero_warn(
        f"{name}: {share:.2f} of the {of} will be removed, and the target is {goal:.2f}. Nothing "
        f"is nearer, since {why or 'so many channels can only be removed together'}: set another "
        f"target{', or lower round_to' if round_to > 1 else ''}"
    )


def _share(module: nn.Module, state: PruningState, selection: Selection, of: Of) -> float:
    saved = state.saved(of, parameter_names(module, state.submodule), selection.selected)
    return saved / max(1, state.total(of))
