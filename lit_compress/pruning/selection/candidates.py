"""The channels of each group in the order of their selection, and the order of all groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise
from math import ceil, gcd

import numpy as np

from lit_compress.pruning.channels.graph import ChannelGraph, Group
from lit_compress.pruning.masks import Scope

#: Shares that older versions told apart.
FINE = 1 << 12


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
class Candidates:
    """The channels of a group in the order of their selection, the selected ones first.

    Attributes:
        index: Index of the group.
        name: Its name.
        order: Numbers of the channels.
        already: How many are selected already.
        most: How many can be selected at most.
        counts: How many may be selected, rising, from ``already`` on.
    """

    index: int
    name: str
    order: np.ndarray
    already: int
    most: int
    counts: tuple[int, ...]

    def nearest(self, wanted: int) -> int:
        """Return how many channels to select when this many are wanted; of two, the fewer."""
        return min(self.counts, key=lambda count: (abs(count - wanted), count))


class Path:
    """The steps of all groups in the order in which they are taken, one group at a time.

    With ``local`` scope the next is the group that is most behind the common share, so that each
    loses its share of channels, rounded to the nearest number. With ``global`` scope it is the
    group whose next channel has the lowest score; of several that go together, the one in the
    middle counts.

    Args:
        candidates: The groups.
        scope: Rank the channels of each group alone, or of all groups together.
        scores: The scores of the channels.
        start: Channels that are selected at the start of the path.
        up: Round the share of each group up to whole channels, and let groups with the same share
            go together, as older versions did.
    """

    def __init__(
        self,
        candidates: Sequence[Candidates],
        scope: Scope,
        scores: np.ndarray,
        start: frozenset[int],
        up: bool = False,
    ) -> None:
        self._candidates = candidates
        self._start = start
        self._up = up
        keyed: list[tuple[float, int, int, int]] = []
        for place, group in enumerate(candidates):
            for before, after in pairwise(group.counts):
                if scope == "local":
                    share = (before if up else (before + after) / 2) / len(group.order)
                    key, tie = (int(share * FINE) if up else share), place
                else:
                    tie = int(group.order[(before + after + 1) // 2 - 1])
                    key = float(scores[tie])
                keyed.append((key, tie, place, after))
        keyed.sort()
        self._keys = [key for key, _, _, _ in keyed]
        self._steps = [(place, after) for _, _, place, after in keyed]

    def __len__(self) -> int:
        return len(self._steps)

    def last_alike(self, steps: int) -> int:
        """Return the number of steps with those that go together with the last of them."""
        while self._up and 0 < steps < len(self) and self._keys[steps] == self._keys[steps - 1]:
            steps += 1
        return steps

    def after(self, steps: int, others: Sequence[int] = ()) -> frozenset[int]:
        """Return the channels that are selected after some steps.

        Args:
            steps: Number of steps.
            others: Places of later steps to take as well; one that is not the next of its group is
                passed over.
        """
        counts = {place: group.already for place, group in enumerate(self._candidates)}
        counts.update(self._steps[:steps])
        for place, after in (self._steps[other] for other in others):
            allowed = self._candidates[place].counts
            if allowed[allowed.index(counts[place]) + 1] == after:
                counts[place] = after
        return self._start.union(
            *(self._candidates[place].order[:n].tolist() for place, n in counts.items())
        )


def candidates_of(
    graph: ChannelGraph,
    groups: Sequence[int],
    selected: frozenset[int],
    scores: np.ndarray,
    limits: Limits,
) -> list[Candidates]:
    """Return the candidates of the groups in which each channel has a score, or is selected.

    Args:
        graph: The channels of the unpruned network.
        groups: Indices of the groups.
        selected: Channels that are selected already.
        scores: A score for each channel that is not selected.
        limits: How far a layer may shrink.
    """
    return [
        _candidates(graph, index, selected, scores, limits)
        for index in groups
        if _is_ranked(graph.groups[index], selected, scores)
    ]


def _is_ranked(group: Group, selected: frozenset[int], scores: np.ndarray) -> bool:
    """Tell whether each channel of a group that is not selected has a score."""
    return not np.isnan(
        scores[[number for number in group.channels if number not in selected]]
    ).any()


def _candidates(
    graph: ChannelGraph, index: int, selected: frozenset[int], scores: np.ndarray, limits: Limits
) -> Candidates:
    group = graph.groups[index]
    numbers = np.array(group.channels)
    left = np.array([number not in selected for number in group.channels])
    order = np.lexsort((numbers, np.where(left, scores[numbers], -np.inf)))
    each = _channels_each(graph, index)
    keep = max(ceil(limits.min_channels / each), 1)
    already = int((~left).sum())
    most = max(already, min(graph.removable(group), len(numbers) - keep))
    unit = limits.round_to // gcd(limits.round_to, each)
    later = (n for n in range(already + 1, most + 1) if (len(numbers) - n) % unit == 0)
    return Candidates(
        index,
        group.name,
        order=numbers[order],
        already=already,
        most=most,
        counts=(already, *later),
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
