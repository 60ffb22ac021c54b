"""A share of the differences is moved: the one that makes the least noise."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from lit_compress.artifact import sqnr_db
from lit_compress.quantization import quantize
from lit_compress.quantization.rewrites import channel_scales as scaling
from lit_compress.quantization.rewrites.channel_flow import ChannelFlow
from lit_compress.quantization.rewrites.channel_ranges import Ranges
from lit_compress.quantization.rewrites.channel_scales import LEAST, channel_scales
from quantization.rewrites.test_equalize import captured, uneven


def scales_of(network: nn.Module, images: Tensor) -> Tensor:
    graph = captured(network, images[:2])
    flow = ChannelFlow(graph)
    ranges = Ranges(graph, flow.made)
    with torch.no_grad():
        flow.run(images[:2])
        ranges.run(images)
        return channel_scales(flow, ranges.seen(flow.count), largest=127)


def test_the_share_that_is_moved_makes_the_least_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    """One share for all: where weights are as unlike as activations, they lost what those won."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 32), nn.Linear(32, 8))
    uneven(network[0].weight, 2**-7)
    uneven(network[2].weight, 2**-4)
    images = torch.randn(512, 16)
    found = {}
    for shares in (scaling.MOVES, *((share,) for share in scaling.MOVES)):
        monkeypatch.setattr(scaling, "MOVES", shares)
        with torch.no_grad():
            int8 = quantize(network, [images], images[:2])(images).numpy()
            found[shares] = sqnr_db(network(images).numpy(), int8)
    best, *each = found.values()
    assert best > max(each) - 1.5
    assert best > min(each) + 2


def test_filters_of_single_channels_take_all_down_to_the_least() -> None:
    network = nn.Sequential(nn.Conv2d(1, 4, 1, bias=False), nn.ReLU(), nn.Conv2d(4, 4, 1, groups=4))
    sizes = torch.tensor([1.0, 1 / 2, 1 / 32, 1 / 1024])
    with torch.no_grad():
        network[0].weight.copy_(sizes.view(4, 1, 1, 1))
    found = scales_of(network, torch.rand(8, 1, 4, 4))
    torch.testing.assert_close(found[:4], sizes.clamp(min=LEAST))
    assert torch.equal(found[4:], torch.ones(4))  # no layer reads them


def test_channels_without_a_signal_are_left_alone() -> None:
    network = nn.Sequential(nn.Conv2d(1, 4, 1, bias=False), nn.ReLU(), nn.Conv2d(4, 2, 1))
    with torch.no_grad():
        network[0].weight.fill_(-1)  # the rectifier leaves nothing
    assert torch.equal(scales_of(network, torch.rand(8, 1, 4, 4)), torch.ones(6))
