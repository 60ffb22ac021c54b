"""The layout of a value says which channel stands at each place."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from lit_compress.quantization.shuffles.layouts import DEQUANTIZE, QUANTIZE, Layouts

from .networks import Network, captured, shuffled

Moves = Callable[[Network, Tensor], Tensor]


def moved(moves: Moves) -> tuple[np.ndarray | None, np.ndarray]:
    """Return the layout of a result of 12 channels, and what the channels hold in fact."""
    image = torch.arange(12.0).view(1, 12, 1, 1).expand(2, 12, 3, 5).contiguous()
    graph = captured(Network(moves), image)
    output = next(iter(reversed(graph.graph.nodes))).all_input_nodes[0]
    layouts = Layouts(graph.graph)
    return layouts.moved.get(output), moves(Network(moves), image)[0, :, 0, 0].numpy()


@pytest.mark.parametrize(
    "moves",
    [
        lambda net, x: shuffled(x, 3),
        lambda net, x: torch.channel_shuffle(x, 4),
        lambda net, x: x.unflatten(1, (3, 4)).permute(0, 2, 1, 3, 4).flatten(1, 2),
        lambda net, x: torch.cat((x[:, 6:], x[:, :6]), 1),
        lambda net, x: torch.cat((x[:, 1::2], x[:, :-4]), dim=1),
        lambda net, x: torch.cat(x.chunk(3, 1)[::-1], 1),
        lambda net, x: torch.cat(x.split([2, 7, 3], 1)[1:], 1),
        lambda net, x: shuffled(shuffled(x, 2), 6).contiguous(),
    ],
)
def test_a_layout_is_what_the_operations_do(moves: Moves) -> None:
    layout, channels = moved(moves)
    assert layout is not None
    np.testing.assert_array_equal(layout, channels)


@pytest.mark.parametrize(
    "moves",
    [
        lambda net, x: x.transpose(2, 3).contiguous().view(2, 12, 3, 5),
        lambda net, x: torch.cat((x, x), 2)[:, :, :3] * 1,
        lambda net, x: x.view(2, 12, 5, 3),
        lambda net, x: x.roll(1, 1),
        lambda net, x: x.flip(1),
    ],
)
def test_other_operations_have_no_layout(moves: Moves) -> None:
    assert moved(moves)[0] is None


def test_a_quantised_value_is_moved_only_if_its_numbers_stay() -> None:
    quantized = torch.ops.quantized_decomposed

    def forward(net: Network, x: Tensor) -> Tensor:
        limits = (0, 255, torch.uint8)
        for scale in (0.1, 0.1, 0.2):
            x = quantized.quantize_per_tensor(x, scale, 3, *limits)
            x = shuffled(quantized.dequantize_per_tensor(x, scale, 3, *limits))
        return x

    graph = captured(Network(forward), torch.rand(1, 12, 3, 3)).graph
    layouts = Layouts(graph)
    assert [n in layouts.moved for n in graph.nodes if n.target is QUANTIZE] == [False, True, False]
    first, second, third = (layouts.limits[n] for n in graph.nodes if n.target is DEQUANTIZE)
    assert first == second != third
