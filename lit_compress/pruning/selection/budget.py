"""Selecting channels so that a share of the filters, parameters or MACs is pruned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from math import ceil
from typing import Literal

import numpy as np

from lit_compress.pruning.channels.graph import ChannelGraph
from lit_compress.pruning.masks import Scope
from lit_compress.pruning.selection.candidates import Limits, Path, candidates_of

Of = Literal["filters", "parameters", "macs"]


@dataclass(frozen=True)
class Budget:
    """What a network costs.

    Attributes:
        parameters: Number of elements of its parameters.
        macs: Multiply-accumulates of one forward of one example.
        filters: Number of prunable filters of its conv and linear layers.
        uncounted: Names of operators whose MACs are not known, and so not part of ``macs``.
    """

    parameters: int
    macs: int
    filters: int = 0
    uncounted: tuple[str, ...] = ()


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
    up: bool = False,
) -> Selection:
    """Select the channels to prune so that a share of the unpruned network is pruned.

    With ``local`` scope each group loses the same share of its channels, as near as whole channels
    come to it; with ``global`` scope the channels with the lowest scores are selected. In both, the
    whole network comes as near to the share as the next channels bring it.

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
        up: Select what reaches the share, each group rounded up, as older versions did; a run that
            is resumed from one of their checkpoints ends as it would have.

    Returns:
        The selection nearest to the share, or the largest that the limits allow.
    """
    if up and of == "filters" and scope == "local":
        limits = replace(limits, ratios=dict.fromkeys(groups, share) | dict(limits.ratios))
    every = candidates_of(graph, groups, selected, scores, limits)
    ruled = [(c, limits.ratios[c.index]) for c in every if c.index in limits.ratios]
    common = [c for c in every if c.index not in limits.ratios]
    wanted = [(c, ceil(len(c.order) * ratio)) for c, ratio in ruled]
    fixed = selected.union(*(c.order[: c.nearest(number)].tolist() for c, number in wanted))
    clamped = tuple(c.name for c, number in wanted if number > c.most)
    cost = _Cost(graph, of, parameters)
    due = share * getattr(budget, of)
    if of == "filters":
        # Layers of a rule, and local ones without a score, change nothing for the others.
        counted = [c.index for c in common] if scope == "local" else groups
        mine = frozenset(
            n for i in counted if i not in limits.ratios for n in graph.groups[i].channels
        )
        due = share * cost.saved(mine) + cost.saved(fixed - mine)
        clamped += tuple(c.name for c in common if c.most < len(c.order) * share)
    path = Path(common, scope, scores, fixed, up)
    place = _first_enough(path, cost, due)
    chosen = path.mask(path.last_alike(place)) if up else _nearest(path, cost, due, place)
    short = of != "filters" and np.array_equal(chosen, path.mask(len(path)))
    short = short and cost.saved_by(chosen) < due
    selected = frozenset(np.flatnonzero(chosen).tolist())
    return Selection(selected, tuple(c.name for c in every) if short else clamped)


#: How many of the next steps are tried for the one that comes nearest to the share.
NEXT = 8


def _first_enough(path: Path, cost: _Cost, due: Fraction) -> int:
    """Return the number of steps after which enough is saved, all steps if it never is."""
    low, high = 0, len(path)
    while low < high:
        middle = (low + high) // 2
        if cost.saved_by(path.mask(middle)) >= due:
            high = middle
        else:
            low = middle + 1
    return low


def _nearest(path: Path, cost: _Cost, due: Fraction, place: int) -> np.ndarray:
    """Return the selection near a place on a path that saves as nearly as possible what is due."""
    before, end = max(0, place - 1), min(place + NEXT, len(path))

    def off(others: list[int]) -> Fraction:
        return abs(cost.saved_by(path.mask(before, others)) - due)

    taken: list[int] = []
    while left := [step for step in range(before, end) if step not in taken]:
        best = min(left, key=lambda step: off([*taken, step]))
        if off([*taken, best]) >= off(taken):
            break
        taken.append(best)
    return path.mask(before, taken)


class _Cost:
    """Counts what the removal of channels saves."""

    def __init__(self, graph: ChannelGraph, of: Of, parameters: frozenset[str]) -> None:
        self._graph = graph
        self._of = of
        self._filters = graph.filters()
        self._weights = {
            name: Fraction(1) if of == "parameters" else graph.positions.get(name, Fraction())
            for name in graph.shapes
            if name in parameters
        }
        self._owners: dict[str, dict[int, int]] = {}
        #: The channels of each dimension; tensors that are cut together share them.
        self._channels: list[np.ndarray] = []
        known: dict[tuple[int, bytes], int] = {}
        for (name, dim), channels in graph.channel_of.items() if of != "filters" else ():
            if self._weights.get(name):
                which = known.setdefault((len(channels), channels.tobytes()), len(known))
                if which == len(self._channels):
                    self._channels.append(channels)
                self._owners.setdefault(name, {})[dim] = which

    def saved(self, selected: frozenset[int]) -> int:
        """Return the number of filters, parameters or MACs of some channels."""
        dropped = np.zeros(self._graph.channel_count + 1, bool)
        dropped[list(selected)] = True
        return self.saved_by(dropped)

    def saved_by(self, dropped: np.ndarray) -> int:
        """Return the same of the channels whose number is True; the last is looked up by FIXED."""
        if self._of == "filters":
            return int(self._filters[dropped[:-1]].sum())
        counts = [int(dropped[channels].sum()) for channels in self._channels]
        weights = sum(
            self._weights[name] * self._lost(self._graph.shapes[name], dims, counts)
            for name, dims in self._owners.items()
        )
        products = self._graph.products if self._of == "macs" else ()
        return round(weights) + sum(product.saved(dropped) for product in products)

    @staticmethod
    def _lost(shape: Sequence[int], dims: Mapping[int, int], counts: Sequence[int]) -> int:
        before, after = 1, 1
        for dim, size in enumerate(shape):
            before *= size
            after *= size - counts[dims[dim]] if dim in dims else size
        return before - after


def count_saved(
    graph: ChannelGraph, selected: frozenset[int], of: Of, parameters: frozenset[str]
) -> int:
    """Return the exact number of filters, parameters or MACs that removing channels saves."""
    return _Cost(graph, of, parameters).saved(selected)
