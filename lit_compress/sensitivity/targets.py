"""What to prune on trial, layer by layer, and how much of it a tolerance allows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from math import ceil
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from lit_compress.errors import InvalidArgumentError
from lit_compress.measure.cost import Inputs
from lit_compress.pruning.channels.analysis import analyse
from lit_compress.pruning.channels.graph import ChannelGraph, Group
from lit_compress.pruning.channels.trace import named_tensors
from lit_compress.pruning.importance import (
    Importance,
    ImportanceName,
    layer_scores,
    scores_by_channel,
)
from lit_compress.pruning.layers import prunable_weights
from lit_compress.pruning.masks import pruned_count
from lit_compress.pruning.rules.masks import check_filters, filter_dims, rule_masks
from lit_compress.pruning.rules.rule import ElementImportance, Granularity, Rule, default_rules
from lit_compress.pruning.selection.eligible import eligible_groups

#: What a scan prunes: single weights, channels, or what the paper's original code does.
Unit = Literal["element", "filter", "original"]
#: Name of the whole network among the layers of a scan.
WHOLE = "*"

Values = Mapping[str, Tensor]
Ranking = ImportanceName | ElementImportance


@dataclass(frozen=True)
class Target:
    """Something that is pruned on trial.

    Attributes:
        name: Name of the layer's weight, or :data:`WHOLE`.
        tensors: Names of the tensors that change.
        units: How many elements or channels may go.
        granularity: What a rule for it prunes.
        importance: How they are ranked, for a rule.
        pruned: Given a ratio, the changed tensors and how many units are gone.
    """

    name: str
    tensors: tuple[str, ...]
    units: int
    granularity: Granularity | None
    importance: Ranking | None
    pruned: Callable[[Fraction], tuple[Values, int]]


def weight_targets(
    module: nn.Module,
    unit: Unit,
    include: Sequence[str] = ("*",),
    exclude: Sequence[str] = (),
) -> list[Target]:
    """Return the weights whose elements, or filters as the original code has it, go on trial.

    Args:
        module: The network; nothing is changed in it.
        unit: ``element``, or ``original``: filters of convolutions by their Euclidean norm, and
            elements of linear layers, set to zero.
        include: Patterns of layer names.
        exclude: Patterns of layer names.

    Raises:
        PatternError: If a pattern matches nothing, or a layer has no plain weight.
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
        pruned = _masked(module, {name: rule})
        tensors = (first[id(weight)],)
        found.append(Target(name, tensors, units, rule.granularity, rule.importance, pruned))
        ruled[name] = rule
    units = sum(target.units for target in found)
    every = tuple(first[id(weight)] for weight in weights.values())
    return [*found, Target(WHOLE, every, units, None, None, _masked(module, ruled))]


def channel_targets(
    module: nn.Module,
    example: Inputs,
    submodule: str,
    importance: Importance,
    name: ImportanceName,
    include: Sequence[str] = ("*",),
    exclude: Sequence[str] = (),
) -> list[Target]:
    """Return the groups of channels that go on trial: what reads them sees zeros instead.

    Args:
        module: The network; nothing is changed in it.
        example: What its forward takes.
        submodule: Name of the part of it that takes it.
        importance: How channels are ranked.
        name: What rules call it.
        include: Patterns of layer names.
        exclude: Patterns of layer names.

    Raises:
        ChannelError: If no channel can go.
        PatternError: If a pattern matches nothing.
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
        maker = _maker(graph, group)
        kind: Granularity = "filter" if tensors[maker].dim() > 2 else "neuron"
        pruned = _unread(module, graph, [group], scores)
        names = _readers(graph, [group])
        found.append(Target(maker, names, len(group.channels), kind, name, pruned))
    units = sum(target.units for target in found)
    readers = _readers(graph, groups)
    pruned = _unread(module, graph, groups, scores)
    return [*found, Target(WHOLE, readers, units, None, None, pruned)]


def check_levels(levels: Sequence[float]) -> tuple[Fraction, ...]:
    """Return the ratios of a scan as the decimals that were written, rising.

    Raises:
        InvalidArgumentError: If there are none, or one is no number in [0, 1].
    """
    if not isinstance(levels, (list, tuple)) or not levels:
        raise InvalidArgumentError(f"levels must be a list of ratios, got {levels!r}")
    for level in levels:
        number = isinstance(level, (int, float)) and not isinstance(level, bool)
        if not number or not 0 <= level <= 1:
            raise InvalidArgumentError(f"levels must be numbers in [0, 1], got {level!r}")
    return tuple(sorted({Fraction(repr(float(level))) for level in levels}))


def largest_tolerated(drops: Mapping[Fraction, float], tolerance: float) -> Fraction:
    """Return the largest ratio up to which no drop is above a tolerance; 1 is never returned.

    Args:
        drops: By ratio, how much is lost.
        tolerance: How much may be.
    """
    best = Fraction(0)
    for ratio in sorted(drops):
        if drops[ratio] > tolerance or drops[ratio] != drops[ratio]:
            break
        if ratio < 1:
            best = ratio
    return best


class Bisection:
    """Looks for the largest ratio that a tolerance allows with few trials, as if drops only rose.

    Args:
        levels: The ratios to choose from, rising.
        tolerance: How much may be lost.
    """

    def __init__(self, levels: Sequence[Fraction], tolerance: float) -> None:
        self._levels = [level for level in levels if 0 < level < 1]
        self._tolerance = tolerance
        self._low, self._high = 0, len(self._levels)

    @property
    def next(self) -> Fraction | None:
        """The ratio to try, None when it is found."""
        if self._low >= self._high:
            return None
        return self._levels[(self._low + self._high) // 2]

    def tell(self, drop: float) -> None:
        """Take note of what is lost at the ratio that was tried."""
        middle = (self._low + self._high) // 2
        if drop <= self._tolerance:
            self._low = middle + 1
        else:
            self._high = middle

    @property
    def found(self) -> Fraction:
        """The largest ratio that is allowed, of those tried; 0 if none is."""
        return self._levels[self._low - 1] if self._low else Fraction(0)


def rules_of(chosen: Mapping[str, Fraction], targets: Sequence[Target]) -> tuple[Rule, ...]:
    """Return rules that prune each layer by its ratio; layers that lose nothing are skipped."""
    return tuple(
        Rule(
            target.name, chosen[target.name] or None, "scan", target.granularity, target.importance
        )
        for target in targets
        if target.name in chosen and target.name != WHOLE
    )


def _masked(
    module: nn.Module, ruled: Mapping[str, Rule]
) -> Callable[[Fraction], tuple[Values, int]]:
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


def _unread(
    module: nn.Module, graph: ChannelGraph, groups: Sequence[Group], scores: np.ndarray
) -> Callable[[Fraction], tuple[Values, int]]:
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
    """Return the names of the tensors that read channels of groups."""
    return tuple(
        dict.fromkeys(
            name for g in groups for name, dim in g.keys if graph.roles[name, dim] == "input"
        )
    )


def _maker(graph: ChannelGraph, group: Group) -> str:
    makers = [n for n, dim in group.keys if graph.roles[n, dim] == "filter"]
    return makers[0] if makers else group.keys[0][0]
