"""Which channels go, so that a share of the filters, parameters or MACs does."""

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
    """What a network costs in all.

    Attributes:
        parameters: Elements of its parameters.
        macs: Multiply-accumulates of one forward of the example.
        filters: Filters of conv and linear layers that may go.
    """

    parameters: int
    macs: int
    filters: int = 0


@dataclass(frozen=True)
class Limits:
    """How far a layer may shrink.

    Attributes:
        min_channels: Channels that stay at least.
        round_to: Widths are multiples of this, where there are as many channels.
        ratios: By index of a group, the share that it loses in place of the common one.
    """

    min_channels: int = 1
    round_to: int = 1
    ratios: Mapping[int, Fraction] = field(default_factory=dict)


@dataclass(frozen=True)
class Selection:
    """The choice made.

    Attributes:
        selected: Numbers of all selected channels of the original, earlier ones included.
        clamped: Names of groups that kept more than the share asked for, since they would have
            fallen under ``min_channels``.
    """

    selected: frozenset[int]
    clamped: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Candidates:
    """A group's classes in the order in which they go, those that are gone first."""

    index: int
    name: str
    order: np.ndarray
    already: int
    most: int
    step: int

    def count(self, wanted: int, round_to: int) -> int:
        """Return how many classes go if this many should: within limits, kept ones rounded."""
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
    """Choose the classes to remove so that a share of the original is gone.

    Locally, each group loses the same share of its channels; globally, the lowest scores go.

    Args:
        graph: The original network's channels.
        selected: Channels that are selected already; they stay selected.
        scores: A score for each class that is not.
        groups: Indices of the groups that may lose channels.
        share: Share of the original to remove, in [0, 1).
        of: What the share is of.
        scope: Rank each group alone or all together.
        limits: How far a layer may shrink.
        budget: What the original costs.
        parameters: Names of the tensors that count as parameters.

    Returns:
        The choice: the least that reaches the share, or all that the limits let go.
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


#: Steps in which a local share is searched for.
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
    """Return how many classes each group should lose at a level of severity."""
    if scope == "local":
        return [(c, ceil(Fraction(len(c.order) * level, _FINE))) for c in candidates]
    left = [number for c in candidates for number in c.order[c.already : c.most].tolist()]
    of_group = [i for i, c in enumerate(candidates) for _ in range(c.already, c.most)]
    ranked = np.lexsort((left, scores[left])) if left else np.empty(0, int)
    lost = np.bincount(np.array(of_group, int)[ranked[:level]], minlength=len(candidates))
    return [(c, c.already + int(lost[i])) for i, c in enumerate(candidates)]


def _least(holds: Callable[[int], bool], last: int) -> int:
    """Return the least level at which something that then stays true holds, or the last."""
    low, high = 0, last
    while low < high:
        middle = (low + high) // 2
        if holds(middle):
            high = middle
        else:
            low = middle + 1
    return low


def _is_ranked(group: Group, selected: frozenset[int], scores: np.ndarray) -> bool:
    """Tell whether each class of a group that is left has a score."""
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
    return _Candidates(index, group.name, numbers[order], already, max(most, already), step)


def _channels_each(graph: ChannelGraph, index: int) -> int:
    """Return how many filters of a layer go with one class of a group."""
    group = graph.groups[index]
    counts = [
        int((graph.channel_of[key] == group.channels[0]).sum())
        for key in group.keys
        if graph.roles[key] == "filter"
    ]
    return max(counts, default=1)


class _Cost:
    """Counts what the removal of classes saves."""

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
        """Return the filters, parameters or MACs that go with classes."""
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


def saved(graph: ChannelGraph, selected: frozenset[int], of: Of, parameters: frozenset[str]) -> int:
    """Return how many filters, parameters or MACs go with channel classes, exactly."""
    return _Cost(graph, of, parameters).saved(selected)
