"""Shares of the layers by what their channels are worth: least error for the most parameters.

Each group of channels is removed alone, in steps, and the error that this makes in the outputs is
measured. Then the step with the least error for each parameter that it saves is taken, again and
again. Errors are added up as if groups did not depend on each other.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction

from lightning.pytorch import LightningModule, Trainer

from lit_compress.callbacks._budget.channel_errors import errors_without
from lit_compress.pruning.selection.analysis import current_scores, parameter_names
from lit_compress.pruning.selection.budget import count_saved
from lit_compress.pruning.selection.candidates import Candidates, Limits, candidates_of
from lit_compress.pruning.selection.state import PruningState
from lit_compress.pruning.selection.uniform import UniformSelector

#: Steps in which the channels of a group are removed.
STEPS = 8


@dataclass(frozen=True)
class Allocation:
    """The steps of all groups, the cheapest first.

    Attributes:
        groups: The groups, by index.
        steps: Index of a group, and how many of its channels are removed after the step.
        saved: Parameters that are saved after each step, rising.
        total: Parameters of the network.
        count: Returns how many parameters some channels save.
    """

    groups: Mapping[int, Candidates]
    steps: tuple[tuple[int, int], ...]
    saved: tuple[int, ...]
    total: int
    count: Callable[[frozenset[int]], int]

    def selector(self, selector: UniformSelector, share: Fraction) -> UniformSelector:
        """Return a selector that saves about a share of the parameters.

        Args:
            selector: The selector whose layers have no shares of their own yet.
            share: The share.
        """
        place = min(bisect_left(self.saved, share * self.total), len(self.steps) - 1)
        counts = dict(self.steps[: place + 1])
        index, after = self.steps[place]
        before = dict(self.steps[:place]).get(index, 0)
        start = self.saved[place - 1] if place else 0
        part = (share * self.total - start) / max(1, self.saved[place] - start)
        wanted = before + (after - before) * min(Fraction(1), max(Fraction(0), part))
        counts[index] = self.groups[index].nearest(round(wanted))
        orders = {index: group.order for index, group in self.groups.items()}
        shares = {index: Fraction(n, len(orders[index])) for index, n in counts.items()}
        taken = (orders[index][:n].tolist() for index, n in counts.items())
        reached = self.count(frozenset[int]().union(*taken))
        shares |= {index: Fraction(0) for index in orders.keys() - shares.keys()}
        return replace(selector, shares=shares, target=Fraction(reached, self.total))


def allocate(
    trainer: Trainer, module: LightningModule, selector: UniformSelector, state: PruningState
) -> Allocation | None:
    """Measure what the channels of each group are worth.

    Args:
        trainer: The run.
        module: The user's module; it does not change.
        selector: Selects the channels of each group.
        state: The pruning state of the network.

    Returns:
        The steps; None if no group may lose channels.
    """
    eligible = selector.eligible(module, state.graph, state.untrained)
    scores = current_scores(module, state, selector.importance)
    limits = Limits(selector.min_channels, selector.round_to)
    free = [index for index in eligible.groups if index not in eligible.ratios]
    found = candidates_of(state.graph, free, state.selected, scores, limits)
    groups = {one.index: one for one in found if len(one.counts) > 1}
    if not groups:
        return None
    errors = _errors(trainer, module, state, groups)
    names = parameter_names(module, state.submodule)

    def saved(channels: frozenset[int]) -> int:
        return count_saved(state.graph, channels, "parameters", names)

    steps, sizes = _cheapest_first(groups, errors, saved)
    return Allocation(groups, steps, sizes, state.total("parameters"), saved)


def _counts(group: Candidates) -> list[int]:
    """Return how many channels are removed after each step of a group."""
    last = len(group.counts) - 1
    places = sorted({max(1, round(last * step / STEPS)) for step in range(1, STEPS + 1)})
    return [group.counts[place] for place in places]


def _errors(
    trainer: Trainer, module: LightningModule, state: PruningState, groups: Mapping[int, Candidates]
) -> dict[int, list[float]]:
    """Return the relative error of the outputs after each step of each group alone."""
    steps = [(index, count) for index, group in groups.items() for count in _counts(group)]
    trials = [groups[index].order[:count].tolist() for index, count in steps]
    errors = errors_without(trainer, module, state, trials)
    found: dict[int, list[float]] = {index: [] for index in groups}
    for (index, _), error in zip(steps, errors, strict=True):
        found[index].append(max(error, *found[index][-1:], 0.0))
    return found


def _cheapest_first(
    groups: Mapping[int, Candidates],
    errors: Mapping[int, list[float]],
    saved: Callable[[frozenset[int]], int],
) -> tuple[tuple[tuple[int, int], ...], tuple[int, ...]]:
    """Return the steps in the order of their error for each parameter, and what is saved then."""
    selected: frozenset[int] = frozenset()
    size = saved(selected)
    counts = {index: [group.already, *_counts(group)] for index, group in groups.items()}
    rises = {index: [0.0, *errors[index]] for index in groups}

    def step(index: int, place: int) -> tuple[float, frozenset[int], int]:
        more = selected | set(groups[index].order[: counts[index][place]].tolist())
        after = saved(more)
        rise = rises[index][place] - rises[index][place - 1]
        return rise / max(1, after - size), more, after

    heap = [(step(index, 1)[0], index, 1) for index in groups]
    heapq.heapify(heap)
    steps, sizes = [], []
    while heap:
        _, index, place = heapq.heappop(heap)
        price, more, after = step(index, place)
        if heap and price > heap[0][0]:  # others were taken since: it saves less now
            heapq.heappush(heap, (price, index, place))
            continue
        selected, size = more, after
        steps.append((index, counts[index][place]))
        sizes.append(size)
        if place + 1 < len(counts[index]):
            heapq.heappush(heap, (step(index, place + 1)[0], index, place + 1))
    return tuple(steps), tuple(sizes)
