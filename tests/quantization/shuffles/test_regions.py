"""A shuffle is left out where that makes the graph smaller."""

from __future__ import annotations

import torch
from torch import Tensor

from lit_compress.quantization.shuffles.layers import Layers
from lit_compress.quantization.shuffles.regions import find_orders

from .networks import Network, captured, conv, shuffled


def pieces(network: Network) -> list[int] | None:
    """Return the number of pieces of each value that is put together from pieces."""
    graph = captured(network, torch.rand(1, 8, 3, 3))
    orders = find_orders(graph, Layers(graph))
    return None if orders is None else [len(found) for found in orders.pieces.values()]


def test_a_shuffle_of_two_values_is_a_concatenation() -> None:
    def forward(net: Network, x: Tensor) -> Tensor:
        return net.c(shuffled(torch.cat((net.a(x), net.b(x)), dim=1)))

    assert pieces(Network(forward, a=conv(8, 4), b=conv(8, 4), c=conv(8, 2))) == [2]


def test_a_split_without_a_shuffle_stays_as_it_is() -> None:
    def forward(net: Network, x: Tensor) -> Tensor:
        left, right = net.a(x).chunk(2, dim=1)
        return net.b(left) + net.b2(right)

    assert pieces(Network(forward, a=conv(8, 8), b=conv(4, 2), b2=conv(4, 2))) is None


def test_a_shuffled_input_in_two_halves_would_be_more_pieces_than_it_saves() -> None:
    def forward(net: Network, x: Tensor) -> Tensor:
        halves = shuffled(x).chunk(2, dim=1)
        thirds = shuffled(x, 4).chunk(2, dim=1)
        return sum(net.a(half) for half in (*halves, *thirds))  # type: ignore[return-value]

    # The input cannot change its order: each half has runs of one or two channels.
    assert pieces(Network(forward, a=conv(4, 2))) is None
