"""Channels that are read together are stored together."""

from __future__ import annotations

import torch
from torch import Tensor

from lit_compress.quantization.operations import aten
from lit_compress.quantization.shuffles.groups import Groups
from lit_compress.quantization.shuffles.layers import Layers
from lit_compress.quantization.shuffles.layouts import Layouts
from lit_compress.quantization.shuffles.orders import Orders

from .networks import Network, captured, conv, shuffled


def orders_of(network: Network) -> tuple[Orders, list[torch.fx.Node]]:
    graph = captured(network, torch.rand(1, 4, 3, 3))
    layouts = Layouts(graph.graph)
    groups = Groups(graph, layouts, Layers(graph))
    read = [node for node in graph.graph.nodes if node in groups.readers]
    found = [node for node in graph.graph.nodes if node.target is aten.conv2d.default]
    return Orders(layouts, groups, read, groups.fixed), found


def test_the_halves_of_a_shuffled_value_are_two_pieces() -> None:
    def forward(net: Network, x: Tensor) -> Tensor:
        left, right = shuffled(net.a(x), 3).chunk(2, dim=1)
        return net.b(left) + net.c(right)

    network = Network(forward, a=conv(4, 12), b=conv(6, 2), c=conv(6, 2))
    orders, (a, _, _) = orders_of(network)
    shuffle = torch.arange(12).view(3, 4).T.reshape(-1).tolist()
    assert orders.of(a) == sorted(shuffle[:6]) + sorted(shuffle[6:])
    assert orders.cuts == {a: [0, 6, 12]}
    halves = list(orders.pieces.values())
    assert [(p.start, p.stop) for pieces in halves for p in pieces] == [(0, 6), (6, 12)]
    for value, half in zip(orders.pieces, (shuffle[:6], shuffle[6:]), strict=True):
        assert [half[index] for index in orders.of(value)] == sorted(half)


def test_an_order_that_depends_on_itself_is_named() -> None:
    def forward(net: Network, x: Tensor) -> Tensor:
        return net.b((y := net.a(x)) + shuffled(y))

    orders, (a, _) = orders_of(Network(forward, a=conv(4, 8), b=conv(8, 2)))
    assert orders.loop is not None
    assert orders.of(a)
