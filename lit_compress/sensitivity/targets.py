"""The layers that a scan tries, and the rules for the ratios that it chose."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from math import ceil
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from lit_compress.measure.cost import Inputs
from lit_compress.pruning.channels.analysis import analyse
from lit_compress.pruning.channels.graph import ChannelGraph, Group
from lit_compress.pruning.channels.tracing.modules import named_tensors
from lit_compress.pruning.importance import (
    Importance,
    ImportanceName,
    layer_scores,
    scores_by_channel,
)
from lit_compress.pruning.layers import layer_name, prunable_weights
from lit_compress.pruning.masks import pruned_count
from lit_compress.pruning.rules.masks import check_filters, filter_dims, rule_masks
from lit_compress.pruning.rules.rule import ElementImportance, Granularity, Rule, default_rules
from lit_compress.pruning.selection.eligible import eligible_groups

#: What a scan prunes: single weights, channels, or the same as the paper's original code.
Unit = Literal["element", "filter", "original"]
#: Name that stands for all layers together in a scan.
WHOLE = "*"

#: New values of tensors, by name.
Values = Mapping[str, Tensor]
#: Given a ratio: the changed tensors, and the number of pruned elements or channels.
Prune = Callable[[Fraction], tuple[Values, int]]
Ranking = ImportanceName | ElementImportance


@dataclass(frozen=True)
class Target:
    """A layer to try, or all layers at once.

    Attributes:
        name: Name of the layer, or :data:`WHOLE`.
        tensors: Names of the tensors that pruning changes.
        units: Number of elements or channels that it has.
        granularity: ``granularity`` of a rule for it; None for :data:`WHOLE`.
        importance: ``importance`` of a rule for it; None for :data:`WHOLE`.
        pruned: Given a ratio, returns the changed tensors and the number of pruned units.
    """

    name: str
    tensors: tuple[str, ...]
    units: int
    granularity: Granularity | None
    importance: Ranking | None
    pruned: Prune


def weight_targets(
    module: nn.Module,
    unit: Unit,
    include: Sequence[str] = ("*",),
    exclude: Sequence[str] = (),
) -> list[Target]:
    """Return the weights to zero on trial: single elements, or filters as in the original code.

    Args:
        module: The network. It is not changed.
        unit: ``element`` zeroes elements by magnitude. ``original`` zeroes filters of convolutions
            by their Euclidean norm and elements of linear layers by magnitude.
        include: Patterns of the layers to try.
        exclude: Patterns of the layers not to try.

    Returns:
        A target for each weight, and :data:`WHOLE` last.

    Raises:
        PatternError: If a pattern matches no layer, or a layer has no plain weight.

    Example:
        >>> from fractions import Fraction
        >>> import torch
        >>> layer = torch.nn.Linear(4, 1, bias=False)
        >>> layer.weight.data = torch.tensor([[3.0, -1.0, 2.0, -4.0]])
        >>> target, whole = weight_targets(layer, "element")
        >>> target.pruned(Fraction(1, 2))
        ({'weight': tensor([[ 3., -0.,  0., -4.]])}, 2)
    """
    weights = prunable_weights(module, include, exclude)
    rules = {rule.pattern: rule for rule in default_rules(module, Fraction(1))}
    first = {id(parameter): name for name, parameter in module.named_parameters()}
    dims = filter_dims(module)
    found, ruled = [], dict[str, Rule]()
    for name, weight in weights.items():
        rule = rules[name]
        if unit == "element":
            rule = replace(rule, granularity="element", importance="abs")
        else:
            check_filters({name: rule} if weight.dim() > 2 else {}, dims)
        units = weight.numel() if rule.granularity == "element" else weight.shape[dims[name]]
        target = Target(
            name=layer_name(name),
            tensors=(first[id(weight)],),
            units=units,
            granularity=rule.granularity,
            importance=rule.importance,
            pruned=_masking(module, {name: rule}),
        )
        found.append(target)
        ruled[name] = rule
    every = tuple(first[id(weight)] for weight in weights.values())
    return [*found, _whole(found, every, _masking(module, ruled))]


def channel_targets(
    module: nn.Module,
    example: Inputs,
    submodule: str,
    importance: Importance,
    name: ImportanceName,
    include: Sequence[str] = ("*",),
    exclude: Sequence[str] = (),
) -> list[Target]:
    """Return the groups of channels to prune on trial.

    A trial does not remove a channel. It zeroes the weights that read it, which has the same
    effect on the outputs, and keeps the shapes.

    Args:
        module: The network. It is not changed.
        example: Example inputs of its forward.
        submodule: Name of the part of ``module`` that takes ``example``; empty for all of it.
        importance: How channels are ranked.
        name: Name of ``importance`` in rules.
        include: Patterns of the layers to try.
        exclude: Patterns of the layers not to try.

    Returns:
        A target for each group, named by the first layer that computes its channels, and
        :data:`WHOLE` last.

    Raises:
        ChannelError: If no channel can be removed.
        PatternError: If a pattern matches no layer.
    """
    graph = analyse(module, example, submodule)
    indices = eligible_groups(module, graph, importance, include, exclude).groups
    scores = scores_by_channel(graph, layer_scores(module, graph, importance), importance)
    groups = [graph.groups[i] for i in indices]
    groups = [
        g for g in groups if graph.removable(g) and not np.isnan(scores[list(g.channels)]).any()
    ]
    tensors = named_tensors(module)
    found = []
    for group in groups:
        weight = _filter_weight(graph, group)
        kind: Granularity = "filter" if tensors[weight].dim() > 2 else "neuron"
        target = Target(
            name=layer_name(weight),
            tensors=_readers(graph, [group]),
            units=len(group.channels),
            granularity=kind,
            importance=name,
            pruned=_zeroing_readers(module, graph, [group], scores),
        )
        found.append(target)
    pruned = _zeroing_readers(module, graph, groups, scores)
    return [*found, _whole(found, _readers(graph, groups), pruned)]


def _whole(targets: Sequence[Target], tensors: tuple[str, ...], pruned: Prune) -> Target:
    """Return the target that stands for all layers together."""
    return Target(
        name=WHOLE,
        tensors=tensors,
        units=sum(target.units for target in targets),
        granularity=None,
        importance=None,
        pruned=pruned,
    )


def rules_of(chosen: Mapping[str, Fraction], targets: Sequence[Target]) -> tuple[Rule, ...]:
    """Return a rule for each layer.

    Args:
        chosen: Ratio of each layer, by name. A ratio of 0 gives a rule that skips the
            layer.
        targets: The targets of the scan; those without a ratio, and :data:`WHOLE`, get no rule.
    """
    return tuple(
        Rule(
            pattern=target.name,
            ratio=chosen[target.name] or None,
            place="scan",
            granularity=target.granularity,
            importance=target.importance,
        )
        for target in targets
        if target.name in chosen and target.name != WHOLE
    )


def _masking(module: nn.Module, ruled: Mapping[str, Rule]) -> Prune:
    """Return a function that zeroes elements or filters of weights.

    Args:
        module: The network.
        ruled: The rule of each weight; its ratio is replaced by that of the trial.
    """
    first = {id(parameter): name for name, parameter in module.named_parameters()}
    dims = filter_dims(module)

    def pruned(ratio: Fraction) -> tuple[Values, int]:
        at = {name: replace(rule, ratio=ratio) for name, rule in ruled.items()}
        masks = rule_masks(module, at)
        own = dict(module.named_parameters(remove_duplicate=False))
        values = {
            first[id(own[name])]: own[name].detach() * mask.to(own[name].device)
            for name, mask in masks.items()
        }
        units = [
            pruned_count(
                own[n].numel() if r.granularity == "element" else own[n].shape[dims[n]], ratio
            )
            for n, r in at.items()
        ]
        return values, sum(units)

    return pruned


def _zeroing_readers(
    module: nn.Module, graph: ChannelGraph, groups: Sequence[Group], scores: np.ndarray
) -> Prune:
    """Return a function that zeroes the weights that read the lowest-ranked channels of groups.

    Args:
        module: The network.
        graph: Its channels.
        groups: The groups; the ratio counts in each of them.
        scores: Score of each channel.
    """
    orders = []
    for group in groups:
        numbers = np.array(group.channels)
        orders.append(numbers[np.lexsort((numbers, scores[numbers]))])
    readers = set(_readers(graph, groups))

    def pruned(ratio: Fraction) -> tuple[Values, int]:
        removed: list[int] = []
        for group, order in zip(groups, orders, strict=True):
            count = min(graph.removable(group), ceil(len(order) * ratio))
            removed += order[:count].tolist()
        own = named_tensors(module)
        values: dict[str, Tensor] = {}
        for (name, dim), channels in graph.channel_of.items():
            if graph.roles[name, dim] == "input":
                index = torch.from_numpy(np.flatnonzero(np.isin(channels, removed)))
                if len(index) or name in readers:
                    value = values.get(name, own[name].detach())
                    values[name] = value.index_fill(dim, index.to(value.device), 0)
        return values, len(removed)

    return pruned


def _readers(graph: ChannelGraph, groups: Sequence[Group]) -> tuple[str, ...]:
    """Return the names of the weights that take channels of groups as input."""
    return tuple(
        dict.fromkeys(
            name for g in groups for name, dim in g.keys if graph.roles[name, dim] == "input"
        )
    )


def _filter_weight(graph: ChannelGraph, group: Group) -> str:
    """Return the name of the first weight that computes the channels of a group."""
    weights = [n for n, dim in group.keys if graph.roles[n, dim] == "filter"]
    return weights[0] if weights else group.keys[0][0]
