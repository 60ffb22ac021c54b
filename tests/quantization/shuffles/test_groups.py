"""Values that share an order of channels."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.fx import Node

from lit_compress.quantization.operations import aten
from lit_compress.quantization.shuffles.groups import Groups
from lit_compress.quantization.shuffles.layers import Layers
from lit_compress.quantization.shuffles.layouts import Layouts

from .networks import Network, captured, conv, shuffled


def test_values_between_convolutions_are_a_group() -> None:
    def forward(net: Network, x: Tensor) -> Tensor:
        y = net.a(x).relu() + net.b(x)
        return net.c(shuffled(y)).flatten(1)

    network = Network(forward, a=conv(4, 8), b=conv(4, 8), c=conv(8, 8))
    graph = captured(network, torch.rand(1, 4, 3, 3))
    groups = Groups(graph, Layouts(graph.graph), Layers(graph))
    a, b, c = (node for node in graph.graph.nodes if node.target is aten.conv2d.default)
    total = next(node for node in graph.graph.nodes if node.target is aten.add.Tensor)
    assert groups.find(a) is groups.find(b) is groups.find(total)
    assert groups.find(a) is not groups.find(c)
    assert groups.find(c) in groups.fixed
    assert groups.find(a) not in groups.fixed
    assert list(groups.readers.values()) == [[c]]
    assert groups.takes_any_order(c, groups.fixed)
    assert groups.keeps(total)


def test_an_input_has_a_fixed_order() -> None:
    graph = captured(conv(4, 8), torch.rand(1, 4, 3, 3))
    groups = Groups(graph, Layouts(graph.graph), Layers(graph))
    image: Node = next(node for node in graph.graph.nodes if node.op == "placeholder")
    assert groups.find(image) in groups.fixed
