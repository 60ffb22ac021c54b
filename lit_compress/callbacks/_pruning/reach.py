"""How far a target can be reached, said before the training."""

from __future__ import annotations

from lightning.pytorch.utilities import rank_zero_warn
from torch import nn

from lit_compress.errors import InvalidArgumentError
from lit_compress.pruning.selection.budget import Of, Selection
from lit_compress.pruning.selection.state import PruningState
from lit_compress.pruning.selection.uniform import parameter_names


def check_target(
    module: nn.Module, state: PruningState, selection: Selection, of: Of, goal: float
) -> None:
    """Make sure that what is selected for the end of a schedule is what was asked for.

    Args:
        module: The network.
        state: Its pruning state.
        selection: What would be gone in the end.
        of: What the goal is a share of; layers that keep more filters are said, not refused.
        goal: The share.

    Raises:
        InvalidArgumentError: If so much of the parameters or MACs cannot go.
    """
    if selection.clamped and of != "filters":
        raise InvalidArgumentError(
            f"target {goal:g} of {of} cannot be reached: "
            f"{_share(module, state, selection, of):.3f} can go at most; lower target, or let "
            "more layers go (include, exclude, min_channels, round_to)"
        )


def warn_rounded(
    module: nn.Module, state: PruningState, selection: Selection, of: Of, goal: float, round_to: int
) -> None:
    """Warn if the rounding of widths leaves much less to go than was asked for."""
    share = _share(module, state, selection, of)
    if round_to > 1 and share < 0.9 * goal and not selection.clamped:
        rank_zero_warn(
            f"FilterPruning: {share:.2f} of {goal:.2f} will go, since layers keep multiples of "
            f"{round_to} filters: lower round_to, or raise target"
        )


def _share(module: nn.Module, state: PruningState, selection: Selection, of: Of) -> float:
    saved = state.saved(of, parameter_names(module), selection.selected)
    return saved / max(1, state.total(of))
