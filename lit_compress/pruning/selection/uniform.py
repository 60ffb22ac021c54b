"""How the channels to remove are chosen."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from lit_compress.measure.cost import Inputs, cost
from lit_compress.pruning.channels.analysis import analyse, undisturbed
from lit_compress.pruning.channels.checks import check_module
from lit_compress.pruning.channels.graph import ChannelGraph
from lit_compress.pruning.channels.plan import Cut
from lit_compress.pruning.channels.surgery import cut_tensor
from lit_compress.pruning.channels.trace import named_tensors
from lit_compress.pruning.importance import (
    L2,
    Importance,
    layer_scores,
    refuse_nan,
    scores_by_channel,
)
from lit_compress.pruning.masks import Scope
from lit_compress.pruning.rules.rule import Rule
from lit_compress.pruning.selection.budget import Budget, Limits, Of, Selection, select
from lit_compress.pruning.selection.eligible import Eligible, eligible_groups
from lit_compress.pruning.selection.preview import PruningPreview, preview
from lit_compress.pruning.selection.state import PruningState


@dataclass(frozen=True)
class UniformSelector:
    """Which channels go first, and from which layers.

    Attributes:
        of: What a share is of: ``filters`` that can go, ``parameters`` or ``macs``.
        scope: Rank each layer alone (``local``) or all together (``global``).
        importance: The score by which they are ranked.
        include: Globs of the layers that may lose channels.
        exclude: Globs of those that may not.
        rules: Shares of single layers.
        round_to: Widths are multiples of this.
        min_channels: Channels that each layer keeps at least.
    """

    of: Of = "filters"
    scope: Scope = "local"
    importance: Importance = field(default_factory=L2)
    include: Sequence[str] = ("*",)
    exclude: Sequence[str] = ()
    rules: Sequence[Rule] = ()
    round_to: int = 1
    min_channels: int = 1

    def open(self, module: nn.Module, inputs: Inputs, submodule: str = "") -> PruningState:
        """Analyse a network and count what it costs; nothing is changed in it.

        Args:
            module: The module.
            inputs: What its forward takes.
            submodule: Name of the part of it that takes them.
        """
        return analyse_network(
            module, inputs, submodule, lambda graph: self.eligible(module, graph).groups
        )

    def eligible(self, module: nn.Module, graph: ChannelGraph) -> Eligible:
        """Return the groups that may lose channels."""
        return eligible_groups(
            module, graph, self.importance, self.include, self.exclude, self.rules
        )

    def select(
        self,
        module: nn.Module,
        state: PruningState,
        share: Fraction,
        progress: Fraction = Fraction(1),
        scores: Mapping[str, Tensor] | None = None,
    ) -> Selection:
        """Choose what is to be gone when a share is.

        Args:
            module: The module, as it is now.
            state: Its pruning state.
            share: Share of the original to remove.
            progress: How far the schedule is, from 0 to 1: the rules' ratios are due by as much.
            scores: Scores of its layers' filters, of an importance that needs gradients.
        """
        eligible = self.eligible(module, state.graph)
        ratios = {index: ratio * progress for index, ratio in eligible.ratios.items()}
        return select(
            state.graph,
            state.selected,
            channel_scores(module, state, self.importance, scores),
            eligible.groups,
            share,
            self.of,
            self.scope,
            Limits(self.min_channels, self.round_to, ratios),
            state.budget,
            parameter_names(module),
        )

    def preview(
        self, module: nn.Module, state: PruningState, selection: Selection
    ) -> PruningPreview:
        """Return what a selection takes from each layer, and what cannot go and why."""
        excluded = self.eligible(module, state.graph).excluded
        return preview(module, state.graph, selection.selected, state.budget, excluded)


def analyse_network(
    module: nn.Module,
    inputs: Inputs,
    submodule: str,
    groups: Callable[[ChannelGraph], Sequence[int]],
) -> PruningState:
    """Analyse a network and count what it costs; nothing is changed in it.

    Args:
        module: The module.
        inputs: What its forward takes.
        submodule: Name of the part of it that takes them.
        groups: Tells which groups of channels may lose some.
    """
    check_module(module)
    parameters = dict(module.named_parameters())
    refuse_nan({n: p for n, p in parameters.items() if not isinstance(p, UninitializedParameter)})
    graph = analyse(module, inputs, submodule)
    with undisturbed(module):
        macs = cost(module.get_submodule(submodule), inputs).macs
    count = sum(parameter.numel() for parameter in parameters.values())
    return PruningState(graph, Budget(count, macs, count_filters(graph, groups(graph))))


def count_filters(graph: ChannelGraph, groups: Sequence[int]) -> int:
    """Return how many filters groups hold."""
    channels = [number for index in groups for number in graph.groups[index].channels]
    return int(graph.filters()[channels].sum())


def channel_scores(
    module: nn.Module,
    state: PruningState,
    importance: Importance,
    given: Mapping[str, Tensor] | None = None,
) -> np.ndarray:
    """Return the scores of the channels that are kept, as if the others were removed.

    Args:
        module: The module, as it is now.
        state: Its pruning state.
        importance: The score.
        given: Scores of its layers' filters, of an importance that needs gradients.
    """
    kept = state.kept()
    held = state.plan(state.selected).by_tensor()
    if importance.needs_gradient and given:
        roles = state.graph.roles
        scores = {
            name: score[_makers(roles, held.get(name, {}), name, len(score))]
            for name, score in given.items()
        }
        return scores_by_channel(kept, scores, importance)
    importance = L2() if importance.needs_gradient else importance
    tensors = named_tensors(module)
    cut = {name: cut_tensor(tensors[name].detach(), dims) for name, dims in held.items()}
    return scores_by_channel(kept, layer_scores(module, kept, importance, cut), importance)


def parameter_names(module: nn.Module) -> frozenset[str]:
    """Return the names of a module's parameters, each tensor once."""
    return frozenset(name for name, _ in module.named_parameters())


def _makers(
    roles: Mapping[tuple[str, int], str], cuts: Mapping[int, Cut], name: str, size: int
) -> list[int]:
    """Return which scores of a tensor stay: those of the dimension in which it makes channels."""
    for dim, cut in cuts.items():
        if roles[name, dim] in ("filter", "scale"):
            return list(cut.keep)
    return list(range(size))
