"""Pruning each layer of a network by its rule."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np
from torch import Tensor, nn

from lit_compress.errors import RuleError
from lit_compress.measure.cost import Inputs
from lit_compress.pruning.channels.graph import ChannelGraph
from lit_compress.pruning.importance import L2, Importance, importance_of
from lit_compress.pruning.layers import layers_by_weight
from lit_compress.pruning.masks import Scope
from lit_compress.pruning.rules.masks import check_filters, filter_dims
from lit_compress.pruning.rules.rule import Rule, RuleIndex, assign
from lit_compress.pruning.selection.analysis import (
    analyse_network,
    count_filters,
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
class RuleSelector:
    """Prunes each layer of a network by its rule.

    Attributes:
        rules: One rule a weight, in the order of the rule file. A rule without a ratio keeps the
            channels of its weight, and those that are coupled with them.
        scope: Rank the channels of each layer alone (``local``), or of all layers of a rule
            together (``global``).
        round_to: The number of channels that a layer keeps is a multiple of this.
        min_channels: Smallest number of channels that a layer keeps.
    """

    rules: tuple[Rule, ...]
    scope: Scope = "local"
    round_to: int = 1
    min_channels: int = 1

    @property
    def of(self) -> Of:
        """Ratios of rules are shares of filters."""
        return "filters"

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

        Raises:
            RuleError: If a rule ranks by the scale of a norm, and no norm follows its layer.
        """
        names = untrained_now(module) if untrained is None else untrained

        def ruled(graph: ChannelGraph) -> tuple[int, ...]:
            return tuple(self.eligible(module, graph, names).rules)

        state = analyse_network(
            module, inputs, submodule, ruled, untrained=names, followers=followers
        )
        self._refuse_unranked(module, state)
        return state

    def eligible(
        self, module: nn.Module, graph: ChannelGraph, untrained: Collection[str] | None = None
    ) -> Eligible:
        """Return the groups that rules match, and the layers that keep all their channels."""
        found = eligible_groups(module, graph, L2(), rules=self.rules, untrained=untrained)
        excluded = dict(found.excluded)
        for index in set(found.groups) - set(found.rules):
            excluded.setdefault(graph.groups[index].name, "no rule matches it")
        return Eligible(found.groups, excluded, found.rules)

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
            step: The step of the schedule: a ratio is scaled by its progress, and of a list of
                ratios the one with its index counts.
            scores: By weight name, the scores of its filters, from an importance that needs
                gradients.
        """
        rules = self.eligible(module, state.graph, state.untrained).rules
        selected, clamped = state.selected, list[str]()
        ranked: dict[str, np.ndarray] = {}
        names = parameter_names(module, state.submodule)
        for groups in self._together(rules):
            rule = rules[groups[0]]
            name = rule.importance or "l2"
            if name not in ranked:
                ranked[name] = current_scores(module, state, self._importance(rule), scores)
            dues = {index: rules[index].due(step.progress, step.index) for index in groups}
            chosen = select(
                state.graph,
                state.selected,
                scores=ranked[name],
                groups=groups,
                share=dues[groups[0]],
                of="filters",
                scope=self.scope,
                limits=Limits(
                    self.min_channels,
                    self.round_to,
                    # A ratio is that of each layer, however far the whole is then from it.
                    dues if self.scope == "local" else {},
                ),
                budget=replace(state.budget, filters=count_filters(state.graph, groups)),
                parameters=names,
            )
            selected |= chosen.selected
            clamped += chosen.clamped
        return Selection(selected, tuple(clamped))

    def _together(self, rules: Mapping[int, Rule]) -> list[list[int]]:
        """Return the groups of channels that are selected in one go, by index.

        With ``global`` scope these are the groups of a rule. With ``local`` scope each group is on
        its own, so all are selected in one go that are ranked alike.
        """
        by_rule: dict[str, list[int]] = {}
        for index, rule in rules.items():
            by_rule.setdefault(rule.place, []).append(index)
        if self.scope == "global":
            return list(by_rule.values())
        ordered = [index for groups in by_rule.values() for index in groups]
        alike = groupby(ordered, lambda index: rules[index].importance or "l2")
        return [list(groups) for _, groups in alike]

    def preview(
        self, module: nn.Module, state: PruningState, selection: Selection
    ) -> PruningPreview:
        """Return what each layer loses by a selection, and why other channels are kept."""
        excluded = self.eligible(module, state.graph, state.untrained).excluded
        return preview_layers(module, state, selection.selected, excluded)

    @property
    def removes(self) -> bool:
        """Whether any rule removes channels."""
        return any(rule.ratio is not None for rule in self.rules)

    def idle(self, module: nn.Module, state: PruningState) -> dict[str, str]:
        """Return, by weight, why a rule with a ratio removes none of its filters."""
        graph = state.graph
        found = self.eligible(module, graph, state.untrained)
        cut = {name for index in found.rules for name, _ in graph.groups[index].keys}
        reasons = {frozen.tensor: str(frozen.reason) for frozen in graph.frozen}
        return {
            rule.pattern: f"{rule.place}: "
            + (
                found.excluded.get(rule.pattern.rpartition(".")[0])
                or reasons.get(rule.pattern)
                or "its channels could not be followed"
            )
            for rule in self.rules
            if rule.ratio and rule.pattern not in cut
        }

    def gradient_importances(self) -> tuple[Importance, ...]:
        """Return the importances that need gradients."""
        named = any(r.ratio is not None and r.importance == "taylor" for r in self.rules)
        return (importance_of("taylor"),) if named else ()

    @staticmethod
    def _importance(rule: Rule) -> Importance:
        return importance_of(rule.importance or "l2")  # type: ignore[arg-type]

    def _refuse_unranked(self, module: nn.Module, state: PruningState) -> None:
        ranked: dict[str | None, np.ndarray] = {}
        for index, rule in self.eligible(module, state.graph, state.untrained).rules.items():
            importance = self._importance(rule)
            if importance.reads != "scale":
                continue
            if rule.importance not in ranked:
                ranked[rule.importance] = current_scores(module, state, importance)
            scores = ranked[rule.importance]
            group = state.graph.groups[index]
            if np.isnan(scores[list(group.channels)]).any():
                raise RuleError(
                    f"{rule.place}: importance bn_scale ranks by the norm that follows a layer, "
                    f"and no norm follows {group.name}: use l1, l2, fpgm or taylor for it"
                )


def channel_rules(module: nn.Module, rules: tuple[Rule, ...]) -> tuple[Rule, ...]:
    """Return one rule for each weight that a rule matches, for the removal of channels.

    A weight that a rule skips, or prunes by elements, keeps its channels (its rule has no ratio),
    and so do the channels that are coupled with them, unless an earlier rule removes them.

    Args:
        module: The network.
        rules: The rules of the file.
    """
    dims = {
        name: parameter.dim() for name, parameter in module.named_parameters(remove_duplicate=False)
    }
    order = {id(rule): number for number, rule in enumerate(rules)}
    found = []
    index = RuleIndex(rules)
    for weight, layers in layers_by_weight(module).items():
        rule = index.first(layers)
        if rule is not None and weight in dims:
            elements = rule.kind(dims[weight]) == "element"
            ratio = None if elements else rule.ratio
            found.append(
                (
                    order[id(rule)],
                    replace(rule, pattern=weight, anywhere=False, ratio=ratio),
                )
            )
    return tuple(rule for _, rule in sorted(found, key=lambda item: item[0]))


@dataclass(frozen=True)
class Resolved:
    """The rules of a file, applied to one network.

    Attributes:
        all: By name, the weights that lose something, with their rules.
        masked: The weights among them that are set to zero instead of removed.
        selector: Selects the channels to remove.
    """

    all: Mapping[str, Rule]
    masked: Mapping[str, Rule]
    selector: RuleSelector


def resolve(
    module: nn.Module, rules: tuple[Rule, ...], selector: RuleSelector, removing: bool
) -> Resolved:
    """Apply the rules of a file to a network.

    Args:
        module: The network.
        rules: The rules of the file.
        selector: A selector with the options of the run, and no rules.
        removing: Whether filters and neurons are removed, or only set to zero.

    Raises:
        RuleError: If a rule cannot be applied to the network.
    """
    ruled = assign(module, rules)
    dims = {name: module.get_parameter(name).dim() for name in ruled}
    elements = {n: rule for n, rule in ruled.items() if rule.kind(dims[n]) == "element"}
    if removing:
        return Resolved(ruled, elements, replace(selector, rules=channel_rules(module, rules)))
    filters = {name: rule for name, rule in ruled.items() if name not in elements}
    check_filters(filters, filter_dims(module))
    return Resolved(ruled, ruled, selector)
