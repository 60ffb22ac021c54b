import numpy as np
import pytest
import torch
from torch import nn

from lit_compress.errors import PlanError
from lit_compress.pruning import ChannelGraph, analyse, make_plan
from lit_compress.pruning.channels.graph import grouped


@pytest.fixture
def graph() -> ChannelGraph:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.GroupNorm(4, 8, affine=False),
        nn.Conv2d(8, 12, 1, groups=2),
        nn.BatchNorm2d(12),
        nn.Flatten(),
        nn.Linear(12 * 4, 5),
    )
    return analyse(net, torch.randn(2, 3, 4, 4))


def test_channel_has_its_slices(graph: ChannelGraph) -> None:
    number = graph.channels[-1]
    slices = {(s.tensor, s.dim): s for s in graph.slices(number)}
    assert set(slices) == {
        ("2.weight", 0),
        ("2.bias", 0),
        *((f"3.{name}", 0) for name in ("weight", "bias", "running_mean", "running_var")),
        ("5.weight", 1),
    }
    assert len(slices["5.weight", 1].indices) == 4 * len(slices["2.weight", 0].indices)
    assert slices["5.weight", 1].role == "input"


def test_group_is_named_by_the_layer_that_makes_it(graph: ChannelGraph) -> None:
    assert [group.name for group in graph.groups] == ["0", "2"]


def test_grouped_convolution_keeps_two_inputs_a_group(graph: ChannelGraph) -> None:
    assert graph.min_indices == {("2.weight", 1): 2}
    first, second = graph.groups
    assert graph.removable(first) == 1
    assert graph.removable(second) == len(second.channels) - 1


def test_outputs_are_frozen_with_the_reason(graph: ChannelGraph) -> None:
    (frozen,) = graph.frozen
    assert (frozen.tensor, frozen.dim, frozen.indices) == ("5.weight", 0, tuple(range(5)))
    assert str(frozen.reason) == "is an output of the network"


def test_filters_are_counted_by_channel(graph: ChannelGraph) -> None:
    assert graph.filters().sum() == 8 + 12


def test_graph_without_channels_has_none() -> None:
    graph = analyse(nn.Linear(3, 2), torch.ones(1, 3))
    assert (graph.channel_count, graph.channels, make_plan(graph, ()).cuts) == (0, (), ())


def test_graph_comes_back_from_a_dict(graph: ChannelGraph) -> None:
    again = ChannelGraph.from_dict(graph.to_dict())
    assert again.groups == graph.groups
    assert again.roles == graph.roles
    assert all(
        np.array_equal(channels, again.channel_of[key])
        for key, channels in graph.channel_of.items()
    )
    assert all(
        np.array_equal(channels, again.widths[key]) for key, channels in graph.widths.items()
    )
    assert (again.shapes, again.positions, again.min_indices) == (
        graph.shapes,
        graph.positions,
        graph.min_indices,
    )
    assert again.channel_count == graph.channel_count


@pytest.mark.parametrize("key", ["owners", "shapes", "work", "floors", "norms"])
def test_damaged_dict_is_refused(graph: ChannelGraph, key: str) -> None:
    content = graph.to_dict()
    with pytest.raises(PlanError, match="damaged"):
        ChannelGraph.from_dict({**content, key: 3})


def test_a_channel_takes_no_memory_of_the_size_of_its_number() -> None:
    """A channel number of 2^31 in a damaged checkpoint took 22 GB."""
    channel_of = {("weight", 0): np.array([2**40, 5])}
    (group,) = grouped(channel_of, {("weight", 0): "filter"})
    assert group.channels == (5, 2**40)


class Crossed(nn.Module):
    """Queries of four tokens, keys and values of six: three parts of one packed weight."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.attention(x[:, :4], x, x)[0])


def test_a_part_of_a_weight_counts_as_that_part_and_comes_back() -> None:
    """Each part counted as the whole: three times the MACs of a packed projection."""
    graph = analyse(Crossed(), torch.randn(1, 6, 8))
    name = "attention.in_proj_weight"
    macs = (4 + 6 + 6) * 8 * 8
    assert graph.positions[name] * 3 * 8 * 8 == macs
    assert graph.positions["head.weight"] == 4
    back = ChannelGraph.from_dict(graph.to_dict())
    assert dict(back.positions) == dict(graph.positions)
    assert isinstance(graph.to_dict()["work"]["head.weight"], int)  # as older versions wrote it
