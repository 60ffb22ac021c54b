from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from lit_compress.pruning import ChannelGraph, analyse

Check = Callable[..., ChannelGraph]


@pytest.mark.parametrize(
    ("layer", "channels"),
    [
        (nn.BatchNorm2d(8), 8),
        (nn.BatchNorm2d(8, affine=False), 8),
        (nn.BatchNorm2d(8, track_running_stats=False), 8),
        (nn.BatchNorm2d(8, affine=False, track_running_stats=False), 8),
        (nn.GroupNorm(1, 8), 0),
        (nn.GroupNorm(4, 8), 4),
        (nn.GroupNorm(4, 8, affine=False), 4),
        (nn.GroupNorm(8, 8), 8),
        (nn.InstanceNorm2d(8), 8),
        (nn.InstanceNorm2d(8, affine=True, track_running_stats=True), 8),
        (nn.PReLU(), 8),
        (nn.PReLU(8), 8),
    ],
    ids=str,
)
def test_norms(between: Check, layer: nn.Module, channels: int) -> None:
    assert len(between(lambda s, x: s.layer(x), layer=layer).channels) == channels


def test_one_weight_for_all_ties_no_channels_of_an_unbatched_image() -> None:
    # its rows were taken for channels, and all of them tied together
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.PReLU(), nn.Flatten(0), nn.Linear(32, 2))
    assert len(analyse(net, torch.randn(3, 4, 4)).channels) == 8


def test_norm_shared_by_two_layers_ties_them(between: Check) -> None:
    def operation(s: nn.Module, x: Tensor) -> Tensor:
        return torch.cat([s.norm(x), s.norm(s.layer(x))], 1)

    graph = between(operation, norm=nn.InstanceNorm2d(8), layer=nn.Conv2d(8, 8, 1))
    assert len(graph.channels) == 8
