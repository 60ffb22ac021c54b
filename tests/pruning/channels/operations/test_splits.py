"""Which part of a split channel dimension may shrink is decided at the end."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from lit_compress.pruning import ChannelGraph

Check = Callable[..., ChannelGraph]


def parts(graph: ChannelGraph) -> list[list[int]]:
    """Return, by channel, the filters of the first layer that it takes along."""
    channels = graph.channel_of["first.weight", 0]
    return [torch.tensor(channels == n).nonzero().flatten().tolist() for n in graph.channels]


def test_the_larger_part_shrinks_and_the_other_is_fixed(between: Check) -> None:
    def shuffle(s: nn.Module, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        return x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)

    assert parts(between(shuffle)) == [[i, i + 4] for i in range(4)]


def test_heads_shrink_where_an_attention_ties_the_larger_part(between: Check) -> None:
    def attend(s: nn.Module, x: Tensor) -> Tensor:
        y = x.flatten(2).transpose(1, 2).unflatten(2, (-1, 4)).transpose(1, 2)
        return (y @ y.transpose(-2, -1)).softmax(-1) @ y

    assert parts(between(attend, width=8)) == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_channels_of_an_image_shrink_when_a_vector_becomes_one(between: Check) -> None:
    def image(s: nn.Module, x: Tensor) -> Tensor:
        return x.mean((2, 3)).view(len(x), -1, 2, 2)

    assert parts(between(image)) == [[0, 1, 2, 3], [4, 5, 6, 7]]
