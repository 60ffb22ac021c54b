"""Pruning all layers of a network towards one target."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from torch import Tensor, nn

from lit_compress.measure.cost import Inputs
from lit_compress.pruning.channels.analysis import Norm
from lit_compress.pruning.channels.graph import ChannelGraph
from lit_compress.pruning.importance import L2, Importance
from lit_compress.pruning.masks import Scope
from lit_compress.pruning.rules.rule import Rule
from lit_compress.pruning.selection.analysis import (
    analyse_network,
    current_scores,
    parameter_names,
)
from lit_compress.pruning.selection.budget import Of, Selection, select
from lit_compress.pruning.selection.candidates import Limits
from lit_compress.pruning.selection.eligible import Eligible, eligible_groups, untrained_now
from lit_compress.pruning.selection.preview import PruningPreview
from lit_compress.pruning.selection.preview_layers import preview_layers
from lit_compress.pruning.selection.selector import LAST_STEP, PruningStep
from lit_compress.pruning.selection.state import PruningState


@dataclass(frozen=True)
class UniformSelector:
    """Prunes the layers of a network towards one target.

    Attributes:
        target: Share to prune at the end of the schedule, in [0, 1).
        of: What the target is a share of: the prunable ``filters``, all ``parameters`` or ``macs``.
        scope: Rank the channels of each layer alone (``local``) or of all layers together
            (``global``).
        importance: The score by which channels are ranked.
        include: Patterns of the layers that may lose channels.
        exclude: Patterns of the layers that may not.
        rules: Ratios of single layers.
        round_to: The number of channels that a layer keeps is a multiple of this.
        min_channels: Smallest number of channels that a layer keeps.
        norm: Whether norms over all channels keep them all (``exact``) or not (``approximate``).
        shares: By index of a group, the share of its channels to remove; those of ``rules`` come
            first. Default: all groups have a common share.
    """

    target: Fraction
    of: Of = "filters"
    scope: Scope = "local"
    importance: Importance = field(default_factory=L2)
    include: Sequence[str] = ("*",)
    exclude: Sequence[str] = ()
    rules: Sequence[Rule] = ()
    round_to: int = 1
    min_channels: int = 1
    norm: Norm = "exact"
    shares: Mapping[int, Fraction] = field(default_factory=dict)

    @property
    def removes(self) -> bool:
        """Whether any channel will be selected."""
        return True

    def analyse(
        self,
        module: nn.Module,
        inputs: Inputs,
        submodule: str = "",
        untrained: Collection[str] | None = None,
        followers: Mapping[str, str] | None = None,
    ) -> PruningState:
        """Return the state of an unpruned network; the network is not changed.

        Args:
            module: The network.
            inputs: Example inputs of its forward.
            submodule: Name of the part of the module whose forward takes them.
            untrained: Names of the weights that are never trained, and so keep their channels.
                Default: those that are not trained now.
            followers: By name, parts that follow others, see
                :func:`~lit_compress.pruning.channels.analysis.analyse`.
        """
        names = untrained_now(module) if untrained is None else untrained
        return analyse_network(
            module,
            inputs,
            submodule,
            lambda graph: self.eligible(module, graph, names).groups,
            untrained=names,
            followers=followers,
            norm=self.norm,
        )

    def eligible(
        self, module: nn.Module, graph: ChannelGraph, untrained: Collection[str] | None = None
    ) -> Eligible:
        """Return the groups that may lose channels."""
        return eligible_groups(
            module,
            graph,
            self.importance,
            include=self.include,
            exclude=self.exclude,
            rules=self.rules,
            untrained=untrained,
        )

    def select(
        self,
        module: nn.Module,
        state: PruningState,
        step: PruningStep = LAST_STEP,
        scores: Mapping[str, Tensor] | None = None,
    ) -> Selection:
        """Select the channels to prune up to a step of the schedule.

        Args:
            module: The module, as it is now.
            state: Its pruning state.
            step: The step of the schedule; target and ratios are scaled by its progress.
            scores: By weight name, the scores of its filters, from an importance that needs
                gradients.
        """
        eligible = self.eligible(module, state.graph, state.untrained)
        own = {**self.shares, **eligible.ratios}
        ratios = {index: ratio * step.progress for index, ratio in own.items()}
        return select(
            state.graph,
            state.selected,
            scores=current_scores(module, state, self.importance, scores),
            groups=eligible.groups,
            share=self.target * step.progress,
            of=self.of,
            scope=self.scope,
            limits=Limits(self.min_channels, self.round_to, ratios),
            budget=state.budget,
            parameters=parameter_names(module, state.submodule),
            up=state.untrained is None,  # the checkpoint of an older version goes on as it began
        )

    def preview(
        self, module: nn.Module, state: PruningState, selection: Selection
    ) -> PruningPreview:
        """Return what each layer loses by a selection, and why other channels are kept."""
        excluded = self.eligible(module, state.graph, state.untrained).excluded
        return preview_layers(module, state, selection.selected, excluded)

    def gradient_importances(self) -> tuple[Importance, ...]:
        """Return the importance if it needs gradients."""
        return (self.importance,) if self.importance.needs_gradient else ()
