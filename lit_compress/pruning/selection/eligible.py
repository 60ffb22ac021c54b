"""Which groups may lose channels, by the patterns of their layers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from torch import nn

from lit_compress.errors import ChannelError
from lit_compress.pruning.channels.checks import check_module
from lit_compress.pruning.channels.graph import ChannelGraph, Group, Key
from lit_compress.pruning.channels.tracing.modules import named_tensors
from lit_compress.pruning.importance import Importance, norm_weights
from lit_compress.pruning.layers import matching, owner_of, prunable_layers
from lit_compress.pruning.rules.rule import Rule, RuleIndex, check_rules


@dataclass(frozen=True)
class Eligible:
    """The groups that may lose channels.

    Attributes:
        groups: Their indices in the channel graph.
        excluded: By name, the layers that keep all their channels, with the reason.
        rules: By index, the rule that gives a group a ratio of its own.
    """

    groups: tuple[int, ...]
    excluded: dict[str, str]
    rules: dict[int, Rule]

    @property
    def ratios(self) -> dict[int, Fraction]:
        """By index, the ratio that a rule gives a group."""
        return {i: rule.ratio for i, rule in self.rules.items() if rule.ratio is not None}


def eligible_groups(
    module: nn.Module,
    graph: ChannelGraph,
    importance: Importance,
    include: Sequence[str] = ("*",),
    exclude: Sequence[str] = (),
    rules: Sequence[Rule] = (),
    untrained: Collection[str] | None = None,
) -> Eligible:
    """Return the groups that may lose channels.

    It may if all layers that make its channels are included, no layer whose filters it holds is
    excluded, and the weights of these layers are trained.

    Args:
        module: The network.
        graph: Its channels.
        importance: The score. With one that reads norms, layers without a norm keep all channels.
        include: Patterns of layer names.
        exclude: Patterns of layer names.
        rules: Ratios of single layers. Of coupled layers, the first rule that matches one counts.
        untrained: Names of the weights that are not trained. Default: those that are not now.

    Raises:
        PatternError: If a pattern matches no layer.
        RuleError: If a rule matches no layer.
        ChannelError: If no channel of the network can be removed.
    """
    layers = prunable_layers(module)
    makers = _makers(module, graph, layers)
    names = dict.fromkeys((*layers, *(name for found in makers.values() for name in found)))
    left_out = set(names) - matching(include, names, "include")
    ruled_out = matching(exclude, names, "exclude")
    norms = norm_weights(module) if importance.reads == "scale" else set()
    untrained = untrained_now(module) if untrained is None else untrained
    check_rules(rules, names)
    left: list[int] = []
    excluded: dict[str, str] = {}
    ruled: dict[int, Rule] = {}
    by_layer = RuleIndex(rules)
    for index, group in enumerate(graph.groups):
        why = _why_not(
            graph, group, makers, left_out=left_out, excluded=ruled_out, untrained=untrained
        )
        tied = [layer for key in group.keys for layer in makers.get(key, ())]
        if not why and importance.reads == "scale" and not any(n in norms for n, _ in group.keys):
            why = "no norm follows it to rank its filters by"
        rule = by_layer.first(tied)
        if not why and rule is not None and rule.ratio is None:
            why = f"a rule says so ({rule.place})"
        if why:
            excluded.update(dict.fromkeys(tied, why))
        else:
            left.append(index)
            if rule is not None and rule.ratio is not None:
                ruled[index] = rule
    if not any(graph.removable(graph.groups[index]) for index in left):
        raise ChannelError(
            f"no channel of {type(module).__name__} can be removed: {_summary(graph, excluded)}"
        )
    return Eligible(tuple(left), excluded, ruled)


def untrained_now(module: nn.Module) -> frozenset[str]:
    """Return the names of the parameters that are not trained at the moment."""
    check_module(module)
    return frozenset(name for name, p in named_tensors(module).items() if not p.requires_grad)


def waiting(
    module: nn.Module, graph: ChannelGraph, channels: Collection[int]
) -> dict[str, frozenset[int]]:
    """Return the channels whose weights are not trained yet, by the name of their group.

    Args:
        module: The network, as it is now.
        graph: Its channels.
        channels: Numbers of the channels in question.
    """
    asked, untrained = frozenset(channels), untrained_now(module)
    return {
        group.name: found
        for group in graph.groups
        if (found := asked & frozenset(group.channels))
        and any(n in untrained for n, dim in group.keys if graph.roles[n, dim] == "filter")
    }


def _why_not(
    graph: ChannelGraph,
    group: Group,
    makers: Mapping[Key, Sequence[str]],
    left_out: set[str],
    excluded: set[str],
    untrained: Collection[str],
) -> str:
    for name, dim in group.keys:
        role = graph.roles[name, dim]
        for layer in makers.get((name, dim), ()):
            if layer in excluded or (layer in left_out and role == "filter"):
                word = "excluded" if layer in excluded else "not included"
                return f"{layer} is {word}, and its channels are coupled with these"
        if role == "filter" and name in untrained:
            return f"{name} is not trained (requires_grad is False)"
    return ""


def _makers(
    module: nn.Module, graph: ChannelGraph, layers: Collection[str]
) -> dict[Key, list[str]]:
    """Return, by weight and dimension, the layers whose filters it holds, or its own name."""
    homes: dict[int, list[str]] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        homes.setdefault(id(parameter), []).append(owner_of(name))
    tensors = named_tensors(module)
    return {
        key: [layer for layer in homes.get(id(tensors[key[0]]), ()) if layer in layers] or [key[0]]
        for key, role in graph.roles.items()
        if role in ("filter", "depthwise")
    }


def _summary(graph: ChannelGraph, excluded: dict[str, str]) -> str:
    """Return why nothing can be removed: the user's own reasons first, then the largest causes."""
    reasons = [f"{layer}: {why}" for layer, why in excluded.items()]
    filters: Counter[str] = Counter()
    first: dict[str, str] = {}
    for frozen in graph.frozen:
        filters[str(frozen.reason)] += len(frozen.indices)
        first.setdefault(str(frozen.reason), frozen.tensor)
    reasons += [f"{first[why]} ({count} filters): {why}" for why, count in filters.most_common()]
    shown = "; ".join(reasons[:3])
    return shown or "its forward uses no conv or linear layer with a weight of its own"
