from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lit_compress.pruning import ChannelGraph, analyse, apply, make_plan

Check = Callable[..., ChannelGraph]


@pytest.mark.parametrize(
    ("layer", "channels"),
    [
        (nn.Conv2d(8, 6, 3), 8 + 6),
        (nn.Conv2d(8, 6, 1, groups=2), 4 + 3),
        (nn.Conv2d(8, 8, 3, groups=8), 8),
        (nn.Conv2d(8, 16, 3, groups=8), 8),
        (nn.Conv2d(8, 6, 3, padding=1, padding_mode="reflect"), 8 + 6),
        (nn.ConvTranspose2d(8, 6, 2), 8 + 6),
        (nn.ConvTranspose2d(8, 6, 2, groups=2), 4 + 3),
        (nn.ConvTranspose2d(8, 16, 2, groups=8), 8),
    ],
    ids=str,
)
def test_convolutions(between: Check, layer: nn.Module, channels: int) -> None:
    assert len(between(lambda s, x: s.layer(x), layer=layer).channels) == channels


def test_grouped_convolution_is_not_made_a_depthwise_one(between: Check) -> None:
    graph = between(lambda s, x: s.layer(x), layer=nn.Conv2d(8, 6, 1, groups=2))
    assert graph.min_indices == {("layer.weight", 1): 2}


@pytest.mark.parametrize("rank", [1, 3])
def test_other_ranks(rank: int) -> None:
    conv = (nn.Conv1d, nn.Conv3d)[rank // 3]
    net = nn.Sequential(
        conv(3, 6, 1), conv(6, 4, 1, groups=2), nn.Flatten(), nn.Linear(4 * 3**rank, 2)
    )
    assert len(analyse(net, torch.randn(2, 3, *[3] * rank)).channels) == 3 + 2


def test_linear_and_matmul_over_the_last_dimension(between: Check) -> None:
    weight = nn.Parameter(torch.randn(6, 5))

    def operation(s: nn.Module, x: torch.Tensor) -> torch.Tensor:
        return s.layer(x.movedim(1, -1)) @ s.weight

    assert len(between(operation, layer=nn.Linear(8, 6), weight=weight).channels) == 8 + 6 + 5


class Conv1D(nn.Module):
    """A linear layer as in GPT-2: a transposed weight, and widths that its forward reads."""

    def __init__(self, nf: int, nx: int) -> None:
        super().__init__()
        self.nf, self.nx = nf, nx
        self.weight, self.bias = nn.Parameter(torch.randn(nx, nf)), nn.Parameter(torch.randn(nf))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        size = (*x.shape[:-1], self.nf)
        return torch.addmm(self.bias, x.reshape(-1, x.shape[-1]), self.weight).view(size)


def test_addmm_of_a_transposed_weight() -> None:
    """GPT-2's layers were frozen."""
    net = nn.Sequential(Conv1D(12, 6), nn.GELU(), Conv1D(5, 12)).eval()
    x = torch.randn(2, 3, 6)
    graph = analyse(net, x)
    assert len(graph.channels) == 12
    with torch.no_grad():
        net[2].weight[4:] = 0  # nothing reads the last eight
        expected = net(x)
        apply(make_plan(graph, graph.channels[4:]), net)
        torch.testing.assert_close(net(x), expected)
    assert (net[0].nf, net[0].nx, net[2].nx, net[2].nf) == (4, 6, 4, 5)


def test_a_scaled_addmm_freezes(between: Check) -> None:
    weight, bias = nn.Parameter(torch.randn(8, 5)), nn.Parameter(torch.randn(5))

    def operation(s: nn.Module, x: torch.Tensor) -> torch.Tensor:
        return torch.addmm(s.bias, x.mean((2, 3)), s.weight, beta=0.5)[:, :, None, None]

    assert not between(operation, weight=weight, bias=bias).channels


def test_bare_weight_is_cut(between: Check) -> None:
    weight = nn.Parameter(torch.randn(6, 8, 1, 1))
    assert len(between(lambda s, x: F.conv2d(x, s.w), w=weight).channels) == 8 + 6


def test_number_of_groups_in_the_code_freezes(between: Check) -> None:
    weight = nn.Parameter(torch.randn(8, 1, 3, 3))
    assert not between(lambda s, x: F.conv2d(x, s.w, groups=8), w=weight).channels
    assert len(between(lambda s, x: F.conv2d(x, s.w, groups=x.shape[1]), w=weight).channels) == 8


def test_computed_weight_is_cut_behind_the_computation(between: Check) -> None:
    layer = nn.Conv2d(8, 6, 1)
    graph = between(lambda s, x: F.conv2d(x, s.layer.weight * 0.5), layer=layer)
    assert len(graph.channels) == 8 + 6
    assert {("layer.weight", 0), ("layer.weight", 1)} <= set(graph.channel_of)


def test_weight_used_twice_ties_its_filters(between: Check) -> None:
    layer = nn.Conv2d(8, 8, 1)
    assert len(between(lambda s, x: s.layer(s.layer(x).relu()), layer=layer).channels) == 8


def test_product_of_activations_freezes(between: Check) -> None:
    assert not between(lambda s, x: x.flatten(2) @ x.flatten(2).transpose(1, 2)).channels


@pytest.mark.parametrize(
    ("layer", "positions"),
    [
        (nn.Conv2d(8, 6, 3), 4),
        (nn.Conv2d(8, 8, 3, groups=8), 4),
        (nn.ConvTranspose2d(8, 6, 2, 2), 16),
        (nn.Linear(4, 6), 32),
    ],
    ids=lambda value: type(value).__name__,
)
def test_positions_are_where_a_weight_is_applied_in_one_image(
    layer: nn.Module, positions: int
) -> None:
    """Of an image of 4 x 4: outputs of a convolution, inputs of a transposed one, and rows."""
    net = nn.Sequential(nn.Conv2d(3, 8, 1), layer)
    found = analyse(net, torch.randn(2, 3, 4, 4)).positions
    assert found == {"0.weight": 16, "1.weight": positions}


def test_linear_layer_of_one_output_without_its_dimension_freezes_and_is_named(
    between: Check,
) -> None:
    """A weight that is a vector has no filters; only a trial found it, which did not say so."""
    weight = nn.Parameter(torch.randn(8))
    graph = between(lambda s, x: F.linear(x.movedim(1, -1), s.w), w=weight)
    (frozen,) = (frozen for frozen in graph.frozen if frozen.tensor == "first.weight")
    assert frozen.reason.why == "passes through an operation that is not supported"
