"""Channels are followed from what makes each to what reads it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from lit_compress.quantization.rewrites.channel_flow import ChannelFlow
from quantization.rewrites.test_equalize import captured


def followed(network: nn.Module, images: Tensor) -> ChannelFlow:
    flow = ChannelFlow(captured(network, images))
    with torch.no_grad():
        flow.run(images)
    return flow


class Branches(nn.Module):
    """Two halves that change places, of which one is read by filters of single channels."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1)
        self.single = nn.Conv2d(2, 4, 3, groups=2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        left, right = self.first(x).relu().chunk(2, 1)
        return self.last(torch.cat([right, left], 1)), self.single(left)


def test_each_reader_has_the_channels_that_it_reads() -> None:
    flow = followed(Branches(), torch.randn(2, 3, 5, 5))
    assert flow.count == 4 + 2 + 4
    assert flow.makers() == [(0, 4), (4, 2), (6, 4)]
    found = [
        (len(read.weight), read.dim, read.channels.tolist(), read.alone) for read in flow.reads
    ]
    assert found == [(2, 1, [2, 3, 0, 1], False), (4, 0, [0, 0, 1, 1], True)]
    assert [sorted(join.tolist()) for join in flow.joins] == [[0, 1, 2, 3]]
    assert [numbers.tolist() for numbers in flow.frozen] == [[4, 5], [6, 7, 8, 9]]  # the outputs


def test_a_factor_goes_to_the_maker_and_its_inverse_to_the_readers() -> None:
    network = Branches()
    flow = followed(network, torch.randn(2, 3, 5, 5))
    scales = torch.ones(flow.count)
    scales[1] = 4
    factors = {name: factor.flatten().tolist() for name, factor in flow.factors(scales).items()}
    assert factors == {
        "first.weight": [1, 1 / 4, 1, 1],
        "first.bias": [1, 1 / 4, 1, 1],
        "last.weight": [1, 1, 1, 4] * 2,
        "single.weight": [1, 1, 4, 4],
    }


class Doubled(nn.Module):
    """One layer is called twice, so that no factor of one call fits the other."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.twice = nn.Linear(3, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.twice(self.twice(self.first(x)))


@pytest.mark.parametrize(
    ("network", "frozen"),
    [
        (nn.Sequential(nn.Linear(3, 4), nn.Sigmoid(), nn.Linear(4, 2)), set(range(6))),
        (Doubled(), set(range(12))),
    ],
)
def test_channels_that_no_factor_may_change_are_frozen(
    network: nn.Module, frozen: set[int]
) -> None:
    flow = followed(network, torch.randn(2, 3))
    assert {int(number) for numbers in flow.frozen for number in numbers} == frozen
