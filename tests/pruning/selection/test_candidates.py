"""How many channels a group may lose, and in which order groups lose them."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import nn

from lit_compress.pruning import ChannelGraph, analyse
from lit_compress.pruning.selection.candidates import Candidates, Limits, Path, candidates_of


@pytest.fixture(scope="module")
def graph() -> ChannelGraph:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    return analyse(net, torch.randn(2, 3))


def two(graph: ChannelGraph, limits: Limits, selected: frozenset[int] = frozenset()) -> list:
    scores = np.arange(graph.channel_count, dtype=float)[::-1].copy()
    return candidates_of(graph, range(len(graph.groups)), selected, scores, limits)


def test_channels_with_the_lowest_scores_are_first_and_selected_ones_before_them(
    graph: ChannelGraph,
) -> None:
    first = graph.groups[0].channels
    (small, _) = two(graph, Limits(), frozenset([first[0]]))
    assert small.order.tolist() == [first[0], first[3], first[2], first[1]]
    assert (small.already, small.counts) == (1, (1, 2, 3))


@pytest.mark.parametrize(
    ("limits", "counts"),
    [
        (Limits(), (0, 1, 2, 3, 4, 5, 6, 7)),
        (Limits(min_channels=5), (0, 1, 2, 3)),
        (Limits(round_to=4), (0, 4)),
        (Limits(round_to=3), (0, 2, 5)),
    ],
)
def test_a_group_keeps_as_many_as_its_limits_say(
    limits: Limits, counts: tuple[int, ...], graph: ChannelGraph
) -> None:
    assert two(graph, limits)[1].counts == counts


@pytest.mark.parametrize(("wanted", "found"), [(0, 0), (1, 0), (2, 2), (3, 2), (4, 5), (9, 5)])
def test_the_nearest_number_is_taken_and_of_two_the_fewer(wanted: int, found: int) -> None:
    assert Candidates("", "", np.arange(8), 0, 7, (0, 2, 5)).nearest(wanted) == found  # type: ignore[arg-type]


def test_a_group_without_scores_is_left_out(graph: ChannelGraph) -> None:
    scores = np.zeros(graph.channel_count)
    scores[graph.groups[0].channels[0]] = np.nan
    groups = range(len(graph.groups))
    found = candidates_of(graph, groups, frozenset(), scores, Limits())
    assert [candidate.index for candidate in found] == [1]


def counts(path: Path, graph: ChannelGraph, steps: int) -> tuple[int, ...]:
    chosen = path.after(steps)
    return tuple(len(chosen & set(group.channels)) for group in graph.groups)


def test_local_groups_take_turns_by_their_share(graph: ChannelGraph) -> None:
    path = Path(two(graph, Limits()), "local", np.zeros(graph.channel_count), frozenset())
    found = [counts(path, graph, steps) for steps in range(len(path) + 1)]
    assert found[:7] == [(0, 0), (0, 1), (1, 1), (1, 2), (1, 3), (2, 3), (2, 4)]
    shares = [(Fraction(a, 4), Fraction(b, 8)) for a, b in found[:-2]]
    assert all(abs(a - b) <= Fraction(1, 4) for a, b in shares)


def test_global_groups_take_turns_by_their_scores(graph: ChannelGraph) -> None:
    scores = np.zeros(graph.channel_count)
    scores[list(graph.groups[0].channels)] = [9, 1, 8, 4]
    scores[list(graph.groups[1].channels)] = [5, 6, 3, 7, 2, 10, 11, 12]
    every = candidates_of(graph, range(2), frozenset(), scores, Limits())
    path = Path(every, "global", scores, frozenset())
    taken = [path.after(n + 1) - path.after(n) for n in range(6)]
    assert [float(scores[next(iter(new))]) for new in taken] == [1, 2, 3, 4, 5, 6]


def test_a_later_step_is_taken_only_if_it_is_the_next_of_its_group(graph: ChannelGraph) -> None:
    path = Path(two(graph, Limits()), "local", np.zeros(graph.channel_count), frozenset())
    assert path.after(0, [0]) == path.after(1)
    assert path.after(0, [2]) == path.after(0)  # the second of the larger group, before the first
    assert path.after(0, [0, 2]) - path.after(0, [0])
