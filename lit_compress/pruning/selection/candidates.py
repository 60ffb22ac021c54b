"""The channels of each group in the order of their selection, and the order of all groups."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from math import ceil, gcd

import numpy as np

from lit_compress.pruning.channels.graph import ChannelGraph
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
        self._start = np.fromiter(start, np.int64, len(start))
        self._up = up
        self._count = len(scores)
        none = np.empty(0, np.int64)
        befores = [np.array(group.counts[:-1], np.int64) for group in candidates]
        afters = [np.array(group.counts[1:], np.int64) for group in candidates]
        sizes = [len(group.order) for group in candidates]
        places = np.arange(len(candidates))
        place = np.repeat(places, [len(after) for after in afters])
        before, after = np.concatenate([none, *befores]), np.concatenate([none, *afters])
        if scope == "local":
            wide = np.array(sizes, np.int64)[place]
            key: np.ndarray = (before if up else (before + after) / 2) / wide
            key, tie = (key * FINE).astype(np.int64) if up else key, place
        else:
            middles = (
                group.order[(low + high + 1) // 2 - 1]
                for group, low, high in zip(candidates, befores, afters, strict=True)
            )
            tie = np.concatenate([none, *middles])
            key = scores[tie]
        taken = np.lexsort((after, place, tie, key))
        self._keys, self._places, self._afters = key[taken], place[taken], after[taken]
        #: All channels, with the place of their group and how many of it go before them.
        self._channels = np.concatenate([none, *(group.order for group in candidates)])
        self._place_of = np.repeat(places, sizes)
        self._rank = np.concatenate([none, *map(np.arange, sizes)])

    def __len__(self) -> int:
        return len(self._places)

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
        return frozenset(np.flatnonzero(self.mask(steps, others)).tolist())

    def mask(self, steps: int, others: Sequence[int] = ()) -> np.ndarray:
        """Return the same by channel number, with False in a last place for what stays."""
        counts = np.array([group.already for group in self._candidates], np.int64)
        # The numbers of a group rise, so its largest is that of its last step.
        np.maximum.at(counts, self._places[:steps], self._afters[:steps])
        for other in others:
            place, after = int(self._places[other]), int(self._afters[other])
            allowed = self._candidates[place].counts
            if allowed[bisect_left(allowed, int(counts[place])) + 1] == after:
                counts[place] = after
        mask = np.zeros(self._count + 1, bool)
        mask[self._start] = True
        mask[self._channels[self._rank < counts[self._place_of]]] = True
        return mask


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
    taken = np.zeros(len(scores), bool)
    taken[list(selected)] = True
    numbers = {index: np.array(graph.groups[index].channels, np.int64) for index in groups}
    return [
        _candidates(graph, index, own, taken[own], scores, limits)
        for index, own in numbers.items()
        if not np.isnan(scores[own[~taken[own]]]).any()  # what is not selected has a score
    ]


def _candidates(
    graph: ChannelGraph,
    index: int,
    numbers: np.ndarray,
    taken: np.ndarray,
    scores: np.ndarray,
    limits: Limits,
) -> Candidates:
    group = graph.groups[index]
    order = np.lexsort((numbers, np.where(taken, -np.inf, scores[numbers])))
    each = _channels_each(graph, index)
    keep = max(ceil(limits.min_channels / each), 1)
    already = int(taken.sum())
    most = max(already, min(graph.removable(group), len(numbers) - keep))
    unit = limits.round_to // gcd(limits.round_to, each)
    first = already + 1 + (len(numbers) - already - 1) % unit
    return Candidates(
        index,
        group.name,
        order=numbers[order],
        already=already,
        most=most,
        counts=(already, *range(first, most + 1, unit)),
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
