"""How far a target can be reached, said before the training."""

from __future__ import annotations

from lightning.pytorch.utilities import rank_zero_warn
from torch import nn

from lit_compress.errors import InvalidArgumentError
from lit_compress.pruning.selection.budget import Of, Selection
from lit_compress.pruning.selection.state import Ledger
from lit_compress.pruning.selection.uniform import parameter_names


def check_reach(
    module: nn.Module, ledger: Ledger, selection: Selection, of: Of, goal: float
) -> None:
    """Make sure that what is selected for the end of a schedule is what was asked for.

    Args:
        module: The network.
        ledger: What is known of it.
        selection: What would be gone in the end.
        of: What the goal is a share of; layers that keep more filters are said, not refused.
        goal: The share.

    Raises:
        InvalidArgumentError: If so much of the parameters or MACs cannot go.
    """
    if selection.clamped and of != "filters":
        raise InvalidArgumentError(
            f"target {goal:g} of {of} cannot be reached: "
            f"{_share(module, ledger, selection, of):.3f} can go at most; lower target, or let "
            "more layers go (include, exclude, min_channels, round_to)"
        )


def say_if_rounded(
    module: nn.Module, ledger: Ledger, selection: Selection, of: Of, goal: float, round_to: int
) -> None:
    """Warn if the rounding of widths leaves much less to go than was asked for."""
    share = _share(module, ledger, selection, of)
    if round_to > 1 and share < 0.9 * goal and not selection.clamped:
        rank_zero_warn(
            f"FilterPruning: {share:.2f} of {goal:.2f} will go, since layers keep multiples of "
            f"{round_to} filters: lower round_to, or raise target"
        )


def _share(module: nn.Module, ledger: Ledger, selection: Selection, of: Of) -> float:
    saved = ledger.saved(of, parameter_names(module), selection.gone)
    return saved / max(1, ledger.total(of))
