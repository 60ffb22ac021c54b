import json

import numpy as np
import pytest
import torch
from torch import nn

from lit_compress.errors import PlanError
from lit_compress.pruning import ChannelGraph, Cut, Plan, analyse, apply, make_plan, restrict


@pytest.fixture
def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.InstanceNorm2d(8), nn.Conv2d(8, 6, 1), nn.Flatten(), nn.Linear(24, 2)
    )


@pytest.fixture
def graph(net: nn.Module) -> ChannelGraph:
    return analyse(net, torch.randn(2, 3, 4, 4))


def test_plan_keeps_channels_that_are_not_removed(graph: ChannelGraph) -> None:
    plan = make_plan(graph, graph.channels[:2])
    cut = plan.by_tensor()["0.weight"][0]
    assert cut == Cut("0.weight", 0, 8, (2, 3, 4, 5, 6, 7))
    assert plan.widths == {"1": 6}


def test_plan_of_nothing_is_empty(graph: ChannelGraph) -> None:
    assert make_plan(graph, ()) == Plan()


def test_plan_comes_back_from_json(graph: ChannelGraph) -> None:
    plan = make_plan(graph, graph.channels[:2])
    assert Plan.from_dict(json.loads(json.dumps(plan.to_dict()))) == plan


@pytest.mark.parametrize(
    "content",
    [{}, {"format": 2}, {"format": 1, "cuts": [{}], "norms": {}}, {"format": 1, "cuts": 3}, 5],
)
def test_what_is_no_plan_is_refused(content: object) -> None:
    with pytest.raises(PlanError):
        Plan.from_dict(content)


@pytest.mark.parametrize("keep", [(), (1, 1), (2, 1), (-1, 0), (0, 4)])
def test_cut_keeps_rising_indices_within_its_size(keep: tuple[int, ...]) -> None:
    with pytest.raises(PlanError, match="must rise"):
        Cut("weight", 0, 4, keep)


@pytest.mark.parametrize("damage", [{"keep": [0.5, 1.5]}, {"size": 8.0}, {"dim": -4}])
def test_numbers_that_are_no_indices_are_refused(
    graph: ChannelGraph, damage: dict[str, object]
) -> None:
    """Fractions were cut to whole numbers, and a dimension counted from the end was another one."""
    content = make_plan(graph, graph.channels[:2]).to_dict()
    content["cuts"][0].update(damage)
    with pytest.raises(PlanError, match=r"not a pruning plan|count from 0"):
        Plan.from_dict(content)


def test_a_place_is_cut_once() -> None:
    with pytest.raises(PlanError, match=r"cuts dimension 0 of a\.weight twice"):
        Plan((Cut("a.weight", 0, 4, (0,)), Cut("a.weight", 0, 4, (1,))))


@pytest.mark.parametrize("number", [-1, 999, 0.5, "0"])
def test_number_of_no_channel_is_refused(graph: ChannelGraph, number: object) -> None:
    """It raised an error of numpy's, or removed another channel."""
    with pytest.raises(PlanError, match="there is no channel "):
        make_plan(graph, [number])  # type: ignore[list-item]


def test_removing_a_whole_layer_is_refused(graph: ChannelGraph) -> None:
    with pytest.raises(PlanError, match="one must remain"):
        make_plan(graph, graph.groups[0].channels)


def test_restricted_graph_is_that_of_the_cut_network(net: nn.Module, graph: ChannelGraph) -> None:
    plan = make_plan(graph, [graph.groups[0].channels[1], graph.groups[1].channels[2]])
    left = restrict(graph, plan)
    apply(plan, net)
    again = analyse(net, torch.randn(2, 3, 4, 4))
    assert left.shapes == again.shapes
    assert [len(g.channels) for g in left.groups] == [len(g.channels) for g in again.groups]
    assert all(len(left.widths[name]) == len(channels) for name, channels in again.widths.items())
    for key, channels in again.channel_of.items():
        _, first = np.unique(channels, return_inverse=True)
        _, second = np.unique(left.channel_of[key], return_inverse=True)
        assert first.tolist() == second.tolist()


def test_plans_follow_each_other(net: nn.Module, graph: ChannelGraph) -> None:
    plan = make_plan(graph, graph.channels[:2])
    left = restrict(graph, plan)
    apply(plan, net)
    apply(make_plan(left, left.channels[:2]), net)
    assert net[0].weight.shape[0] == net[1].num_features == 4
    assert net(torch.randn(1, 3, 4, 4)).shape == (1, 2)


def test_restricting_by_a_foreign_plan_is_refused(graph: ChannelGraph) -> None:
    with pytest.raises(PlanError, match="another network"):
        restrict(graph, Plan((Cut("0.weight", 0, 9, (1,)),)))
