"""Selecting channels so that a share of the filters, parameters or MACs is pruned."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from math import ceil, gcd
from typing import Literal

import numpy as np

from lit_compress.pruning.channels.graph import ChannelGraph, Group
from lit_compress.pruning.masks import Scope

Of = Literal["filters", "parameters", "macs"]


@dataclass(frozen=True)
class Budget:
    """What a network costs.

    Attributes:
        parameters: Number of elements of its parameters.
        macs: Multiply-accumulates of one forward of one example.
        filters: Number of prunable filters of its conv and linear layers.
    """

    parameters: int
    macs: int
    filters: int = 0


@dataclass(frozen=True)
class Limits:
    """How far a layer may shrink.

    Attributes:
        min_channels: Smallest number of channels that a layer keeps.
        round_to: The number of kept channels is a multiple of this, where the layer has as many.
        ratios: By index of a group, the ratio that replaces the common one.
    """

    min_channels: int = 1
    round_to: int = 1
    ratios: Mapping[int, Fraction] = field(default_factory=dict)


@dataclass(frozen=True)
class Selection:
    """The selected channels.

    Attributes:
        selected: Numbers of all selected channels of the original, earlier ones included.
        clamped: Names of the groups that keep more channels than their ratio says, because of
            ``min_channels``.
    """

    selected: frozenset[int]
    clamped: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Candidates:
    """The channels of a group in the order of their selection, the selected ones first."""

    index: int
    name: str
    order: np.ndarray
    already: int
    most: int
    step: int

    def count(self, wanted: int, round_to: int) -> int:
        """Return how many channels to select when this many are wanted, within the limits."""
        if not self.most:
            return self.already
        total = len(self.order)
        kept = total - min(wanted, self.most)
        if round_to > 1 and kept < total:
            unit = round_to // gcd(round_to, self.step)
            least = ceil((total - self.most) / unit) * unit
            kept = min(total, max(least, int(kept / unit + 0.5) * unit))
        return max(self.already, min(total - kept, self.most))


def select(
    graph: ChannelGraph,
    selected: frozenset[int],
    scores: np.ndarray,
    groups: Sequence[int],
    share: Fraction,
    of: Of,
    scope: Scope,
    limits: Limits,
    budget: Budget,
    parameters: frozenset[str],
) -> Selection:
    """Select the channels to prune so that a share of the unpruned network is pruned.

    With ``local`` scope each group loses the same share of its channels; with ``global`` scope the
    channels with the lowest scores are selected.

    Args:
        graph: The channels of the unpruned network.
        selected: Channels that are selected already; they stay selected.
        scores: A score for each channel that is not selected.
        groups: Indices of the groups that may lose channels.
        share: Share of the unpruned network to prune, in [0, 1).
        of: What the share is a share of.
        scope: Rank the channels of each group alone, or of all groups together.
        limits: How far a layer may shrink.
        budget: What the unpruned network costs.
        parameters: Names of the tensors that count as parameters.

    Returns:
        The smallest selection that reaches the share, or the largest that the limits allow.
    """
    ranked = [index for index in groups if _is_ranked(graph.groups[index], selected, scores)]
    candidates = [_candidates(graph, index, selected, scores, limits) for index in ranked]
    ruled = [c for c in candidates if c.index in limits.ratios]
    common = [c for c in candidates if c.index not in limits.ratios]
    fixed = [(c, ceil(len(c.order) * limits.ratios[c.index])) for c in ruled]

    def taken(wanted: Sequence[tuple[_Candidates, int]]) -> frozenset[int]:
        picked = [
            c.order[: c.count(number, limits.round_to)].tolist() for c, number in (*fixed, *wanted)
        ]
        return selected.union(*picked)

    def removed(level: int) -> frozenset[int]:
        return taken(_at_level(common, level, scope, scores, selected))

    due = share * getattr(budget, of)
    if scope == "local" and of == "filters":
        wanted = [(c, ceil(len(c.order) * share)) for c in common]
        clamped = tuple(c.name for c, number in (*fixed, *wanted) if number > c.most)
        return Selection(taken(wanted), clamped)
    cost = _Cost(graph, of, parameters)
    last = _levels(common, scope)
    level = _least(lambda n: cost.saved(removed(n)) >= due, last)
    chosen = removed(level)
    short = cost.saved(chosen) < due
    return Selection(chosen, tuple(c.name for c in candidates) if short else ())


#: Number of steps in the search for a local share.
_FINE = 1 << 12


def _levels(candidates: Sequence[_Candidates], scope: Scope) -> int:
    return _FINE if scope == "local" else sum(len(c.order) - c.already for c in candidates)


def _at_level(
    candidates: Sequence[_Candidates],
    level: int,
    scope: Scope,
    scores: np.ndarray,
    selected: frozenset[int],
) -> list[tuple[_Candidates, int]]:
    """Return how many channels each group should lose at a level of the search."""
    if scope == "local":
        return [(c, ceil(Fraction(len(c.order) * level, _FINE))) for c in candidates]
    left = [number for c in candidates for number in c.order[c.already : c.most].tolist()]
    of_group = [i for i, c in enumerate(candidates) for _ in range(c.already, c.most)]
    ranked = np.lexsort((left, scores[left])) if left else np.empty(0, int)
    lost = np.bincount(np.array(of_group, int)[ranked[:level]], minlength=len(candidates))
    return [(c, c.already + int(lost[i])) for i, c in enumerate(candidates)]


def _least(holds: Callable[[int], bool], last: int) -> int:
    """Return the lowest level at which a monotonic condition holds, or the last level."""
    low, high = 0, last
    while low < high:
        middle = (low + high) // 2
        if holds(middle):
            high = middle
        else:
            low = middle + 1
    return low


def _is_ranked(group: Group, selected: frozenset[int], scores: np.ndarray) -> bool:
    """Tell whether each channel of a group that is not selected has a score."""
    return not np.isnan(
        scores[[number for number in group.channels if number not in selected]]
    ).any()


def _candidates(
    graph: ChannelGraph, index: int, selected: frozenset[int], scores: np.ndarray, limits: Limits
) -> _Candidates:
    group = graph.groups[index]
    numbers = np.array(group.channels)
    left = np.array([number not in selected for number in group.channels])
    order = np.lexsort((numbers, np.where(left, scores[numbers], -np.inf)))
    step = _channels_each(graph, index)
    keep = max(ceil(limits.min_channels / step), 1)
    most = min(graph.removable(group), len(numbers) - keep)
    already = int((~left).sum())
    return _Candidates(
        index,
        group.name,
        order=numbers[order],
        already=already,
        most=max(most, already),
        step=step,
    )


def _channels_each(graph: ChannelGraph, index: int) -> int:
    """Return how many filters of a layer belong to one channel of a group."""
    group = graph.groups[index]
    counts = [
        int((graph.channel_of[key] == group.channels[0]).sum())
        for key in group.keys
        if graph.roles[key] == "filter"
    ]
    return max(counts, default=1)


class _Cost:
    """Counts what the removal of channels saves."""

    def __init__(self, graph: ChannelGraph, of: Of, parameters: frozenset[str]) -> None:
        self._graph = graph
        self._of = of
        self._filters = graph.filters()
        self._weights = {
            name: 1 if of == "parameters" else graph.positions.get(name, 0)
            for name in graph.shapes
            if name in parameters
        }
        self._owners: dict[str, dict[int, np.ndarray]] = {}
        for (name, dim), channels in graph.channel_of.items():
            if self._weights.get(name):
                self._owners.setdefault(name, {})[dim] = channels

    def saved(self, selected: frozenset[int]) -> int:
        """Return the number of filters, parameters or MACs of some channels."""
        if self._of == "filters":
            return int(self._filters[list(selected)].sum())
        dropped = np.zeros(self._graph.channel_count + 1, bool)  # the last is looked up by FIXED
        dropped[list(selected)] = True
        dropped[-1] = False
        return sum(
            self._weights[name] * self._lost(self._graph.shapes[name], dims, dropped)
            for name, dims in self._owners.items()
        )

    @staticmethod
    def _lost(shape: Sequence[int], dims: Mapping[int, np.ndarray], dropped: np.ndarray) -> int:
        before, after = 1, 1
        for dim, size in enumerate(shape):
            before *= size
            after *= size - int(dropped[dims[dim]].sum()) if dim in dims else size
        return before - after


def count_saved(
    graph: ChannelGraph, selected: frozenset[int], of: Of, parameters: frozenset[str]
) -> int:
    """Return the exact number of filters, parameters or MACs that removing channels saves."""
    return _Cost(graph, of, parameters).saved(selected)
