"""Which channels to remove, where rules say how many and by which measure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
from torch import Tensor, nn

from lit_compress.errors import RuleError
from lit_compress.measure.cost import Inputs
from lit_compress.pruning.channels.graph import ChannelGraph
from lit_compress.pruning.importance import L2, Importance, importance_of
from lit_compress.pruning.layers import layers_by_weight
from lit_compress.pruning.masks import Scope
from lit_compress.pruning.rules.masks import check_filters, filter_dims
from lit_compress.pruning.rules.rule import Rule, assign, first_match
from lit_compress.pruning.selection.budget import Limits, Selection, select
from lit_compress.pruning.selection.eligible import Eligible, eligible_groups
from lit_compress.pruning.selection.preview import PruningPreview, preview
from lit_compress.pruning.selection.state import PruningState
from lit_compress.pruning.selection.uniform import (
    analyse_network,
    channel_scores,
    count_filters,
    parameter_names,
)


@dataclass(frozen=True)
class RuleSelector:
    """Removes the channels that rules ask for, each by its own measure.

    Attributes:
        rules: What single layers lose, one rule a weight in the order of the rule file; a rule
            without a ratio keeps the channels that go together with it.
        scope: Rank each layer alone (``local``), or all layers of a rule together (``global``).
        round_to: Widths are multiples of this.
        min_channels: Channels that each layer keeps at least.
    """

    rules: tuple[Rule, ...]
    scope: Scope = "local"
    round_to: int = 1
    min_channels: int = 1

    def open(self, module: nn.Module, inputs: Inputs, submodule: str = "") -> PruningState:
        """Analyse a network and count what it costs; nothing is changed in it.

        Args:
            module: The module.
            inputs: What its forward takes.
            submodule: Name of the part of it that takes them.

        Raises:
            RuleError: If a rule ranks by the scale of norms, and there is none behind its layer.
        """

        def ruled(graph: ChannelGraph) -> tuple[int, ...]:
            return tuple(self.eligible(module, graph).rules)

        state = analyse_network(module, inputs, submodule, ruled)
        self._refuse_unranked(module, state)
        return state

    def eligible(self, module: nn.Module, graph: ChannelGraph) -> Eligible:
        """Return the groups that rules name, and the layers that are left alone."""
        found = eligible_groups(module, graph, L2(), rules=self.rules)
        excluded = dict(found.excluded)
        for index in set(found.groups) - set(found.rules):
            excluded.setdefault(graph.groups[index].name, "no rule names it")
        return Eligible(found.groups, excluded, found.rules)

    def select(
        self,
        module: nn.Module,
        state: PruningState,
        progress: Fraction = Fraction(1),
        stage: int = 0,
        scores: Mapping[str, Tensor] | None = None,
    ) -> Selection:
        """Choose what is to be gone at an event.

        Args:
            module: The module, as it is now.
            state: Its pruning state.
            progress: How far the schedule is, from 0 to 1.
            stage: Number of the event, from 0.
            scores: Scores of its layers' filters, of importances that need gradients.
        """
        rules = self.eligible(module, state.graph).rules
        selected, clamped = state.selected, list[str]()
        ranked: dict[str, np.ndarray] = {}
        for place in dict.fromkeys(rule.place for rule in rules.values()):
            groups = [index for index, rule in rules.items() if rule.place == place]
            rule = rules[groups[0]]
            name = rule.importance or "l2"
            if name not in ranked:
                ranked[name] = channel_scores(module, state, self._importance(rule), scores)
            chosen = select(
                state.graph,
                state.selected,
                ranked[name],
                groups,
                rule.due(progress, stage),
                "filters",
                self.scope,
                Limits(self.min_channels, self.round_to),
                replace(state.budget, filters=count_filters(state.graph, groups)),
                parameter_names(module),
            )
            selected |= chosen.selected
            clamped += chosen.clamped
        return Selection(selected, tuple(clamped))

    def preview(
        self, module: nn.Module, state: PruningState, selection: Selection
    ) -> PruningPreview:
        """Return what a selection takes from each layer, and what cannot go and why."""
        excluded = self.eligible(module, state.graph).excluded
        return preview(module, state.graph, selection.selected, state.budget, excluded)

    @property
    def removes(self) -> bool:
        """Whether any rule asks for channels to be removed."""
        return any(rule.ratio is not None for rule in self.rules)

    def idle(self, module: nn.Module, graph: ChannelGraph) -> dict[str, str]:
        """Return, by weight, why a rule takes no filters of it though it asks for some."""
        found = self.eligible(module, graph)
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
        found = {r.importance: self._importance(r) for r in self.rules if r.ratio is not None}
        return tuple(i for i in found.values() if i.needs_gradient)

    @staticmethod
    def _importance(rule: Rule) -> Importance:
        return importance_of(rule.importance or "l2")  # type: ignore[arg-type]

    def _refuse_unranked(self, module: nn.Module, state: PruningState) -> None:
        for index, rule in self.eligible(module, state.graph).rules.items():
            importance = self._importance(rule)
            if importance.reads != "scale":
                continue
            scores = channel_scores(module, state, importance)
            group = state.graph.groups[index]
            if np.isnan(scores[list(group.channels)]).any():
                raise RuleError(
                    f"{rule.place}: importance bn_scale ranks by the norm behind a layer, and "
                    f"{group.name} has none: use l1, l2, fpgm or taylor for it"
                )


def channel_rules(module: nn.Module, rules: tuple[Rule, ...]) -> tuple[Rule, ...]:
    """Return rules of single weights, of those whose filters or neurons are to be removed.

    What another rule leaves alone, or prunes by elements, keeps its channels, and so do those that
    go together with them, unless a rule before it says otherwise.

    Args:
        module: The network.
        rules: The rules as they were written.
    """
    dims = {
        name: parameter.dim() for name, parameter in module.named_parameters(remove_duplicate=False)
    }
    order = {id(rule): number for number, rule in enumerate(rules)}
    found = []
    for weight, layers in layers_by_weight(module).items():
        rule = first_match(rules, layers)
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
    """Rules as they are for one network.

    Attributes:
        all: By name, the weights that lose something.
        masked: Those of them that are set to zero.
        selector: What removes channels.
    """

    all: Mapping[str, Rule]
    masked: Mapping[str, Rule]
    selector: RuleSelector


def resolve(
    module: nn.Module, rules: tuple[Rule, ...], selector: RuleSelector, removing: bool
) -> Resolved:
    """Return what rules mean for a network.

    Args:
        module: The network.
        rules: The rules as they were written.
        selector: How channels are removed.
        removing: Whether filters and neurons are removed, or only set to zero.

    Raises:
        RuleError: If a rule does not fit the network.
    """
    ruled = assign(module, rules)
    dims = {name: module.get_parameter(name).dim() for name in ruled}
    elements = {n: rule for n, rule in ruled.items() if rule.kind(dims[n]) == "element"}
    if removing:
        return Resolved(ruled, elements, replace(selector, rules=channel_rules(module, rules)))
    filters = {name: rule for name, rule in ruled.items() if name not in elements}
    check_filters(filters, filter_dims(module))
    return Resolved(ruled, ruled, selector)
