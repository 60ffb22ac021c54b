"""Planning the removal of channels on rank zero: analysis, checks, and a trial on a copy."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor

from lit_compress.callbacks._pruning.base import PruningCallback
from lit_compress.callbacks._pruning.compatibility import (
    check_target,
    warn_clamped,
    warn_off_target,
)
from lit_compress.callbacks._pruning.followers import find_followers
from lit_compress.callbacks._pruning.untrained import check_trained_in_time, never_trained
from lit_compress.errors import InvalidArgumentError
from lit_compress.evaluation.dry_run import dry_run
from lit_compress.evaluation.example_inputs import ExampleInputs
from lit_compress.pruning.channels.analysis import verify
from lit_compress.pruning.channels.plan import Plan
from lit_compress.pruning.selection.budget import Selection
from lit_compress.pruning.selection.eligible import waiting
from lit_compress.pruning.selection.selector import ChannelSelector, PruningStep
from lit_compress.pruning.selection.state import PruningState


class ResolvesSelector(PruningCallback):
    """A pruning callback whose target may be known only after the analysis."""

    def keeps_masks(self) -> bool:
        """Tell whether weights are kept at zero during the training."""
        return False

    def resolved_selector(
        self,
        trainer: Trainer,
        module: LightningModule,
        selector: ChannelSelector,
        state: PruningState,
    ) -> tuple[ChannelSelector, str]:
        """Return the selector with its target, and what to say of it."""
        return selector, ""


def plan_removal(
    pruner: ResolvesSelector,
    selector: ChannelSelector,
    example: ExampleInputs,
    trainer: Trainer,
    module: LightningModule,
    *,
    after_analysis: Callable[[PruningState], None],
    has_common_target: bool,
) -> tuple[dict[str, Any], list[int], str, ChannelSelector]:
    """Analyse a network, select the channels for the end of the schedule, and try their removal.

    Args:
        pruner: The callback that removes channels.
        selector: Selects the channels.
        example: Example inputs of the network.
        trainer: The run.
        module: The user's module; it does not change.
        after_analysis: Called with the state of the unpruned network.
        has_common_target: Whether the target is a share of the whole network.

    Returns:
        The state, the numbers of the channels, what is removed, as text, and the selector, whose
        target is known now.

    Raises:
        InvalidArgumentError: If the target cannot be reached, or a step of the user's fails.
        ChannelError: If the outputs change by the removal.
    """
    state = selector.analyse(
        module,
        example.inputs,
        example.submodule,
        untrained=never_trained(trainer, module),
        followers=find_followers(trainer, module),
    )
    if pruner.keeps_masks() and state.graph.normed:
        raise InvalidArgumentError(
            f"{type(module).__name__} has weights that are normalised over their inputs "
            "(weight_norm, standardised weights), which zeros would change until the end: set "
            "shrink to every"
        )
    after_analysis(state)
    selector, found = pruner.resolved_selector(trainer, module, selector, state)
    start = time.monotonic()
    selection = selector.select(module, state)
    seconds = time.monotonic() - start
    plan = state.plan(selection.selected)
    check_trained_in_time(pruner, trainer, module, _makers(state, plan))
    check_target(module, state, selection, selector.of, pruner.goal)
    _warn(pruner, selector, module, state, selection, has_common_target)
    start = time.monotonic()
    verify(module, example.inputs, state.graph, plan, example.submodule)
    seconds += time.monotonic() - start
    dry_run(trainer, module, plan)
    preview = selector.preview(module, state, selection).folded()
    text = f"{preview}\n{found}a pruning step takes about {seconds:.1f} s"
    return state.to_dict(), sorted(selection.selected), text, selector


def select_and_verify(
    selector: ChannelSelector,
    state: PruningState,
    example: ExampleInputs,
    module: LightningModule,
    step: PruningStep,
    scores: Mapping[str, Tensor],
) -> tuple[list[int], list[str]]:
    """Return the channels selected at a step, after their removal was tried on a copy.

    Args:
        selector: Selects the channels.
        state: The pruning state of the network.
        example: Example inputs of the network.
        module: The user's module; it does not change.
        step: The step.
        scores: By weight name, the scores of its filters, from an importance that needs gradients.

    Returns:
        The channels, and the names of the layers that are not trained yet: they keep theirs until
        a later step.

    Raises:
        ChannelError: If the outputs change by the removal.
    """
    selection = selector.select(module, state, step, scores)
    later = waiting(module, state.graph, selection.selected - state.selected)
    selected = selection.selected.difference(*later.values())
    plan = state.plan(selected)
    with isolate_rng():
        verify(module, example.inputs, state.current_graph(), plan, example.submodule)
    return sorted(selected), list(later)


def _makers(state: PruningState, plan: Plan) -> set[str]:
    """Return the names of the weights whose filters a plan removes."""
    roles = state.graph.roles
    return {cut.tensor for cut in plan.cuts if roles[cut.tensor, cut.dim] == "filter"}


def _warn(
    pruner: PruningCallback,
    selector: ChannelSelector,
    module: LightningModule,
    state: PruningState,
    selection: Selection,
    has_common_target: bool,
) -> None:
    """Warn of layers and of a whole that end far from the target."""
    name = type(pruner).__name__
    warn_clamped(name, selection.clamped, selector.min_channels)
    if has_common_target:
        goal, round_to = pruner.goal, selector.round_to
        warn_off_target(name, module, state, selection, selector.of, goal=goal, round_to=round_to)
