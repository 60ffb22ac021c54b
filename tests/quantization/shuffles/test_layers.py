"""Convolutions whose channels may stand in any order."""

from __future__ import annotations

import torch
from torch import nn
from torch.fx import GraphModule, Node

from lit_compress.quantization import quantize
from lit_compress.quantization.operations import aten
from lit_compress.quantization.shuffles.layers import CONVOLUTIONS, Layers, data_of

from .networks import Network, captured, conv

IMAGE = torch.rand(2, 4, 5, 5, generator=torch.Generator().manual_seed(1))


def convolutions(graph: GraphModule) -> list[Node]:
    return [node for node in graph.graph.nodes if node.target in CONVOLUTIONS]


def test_kinds_of_layers() -> None:
    shared = conv(8, 8)
    network = nn.Sequential(
        conv(4, 8), conv(8, 8, groups=8), conv(8, 8, groups=2), conv(8, 16, groups=8), conv(16, 8),
        shared, shared,
    )  # fmt: skip
    graph = captured(network, IMAGE)
    layers = Layers(graph)
    kinds = [(layers.mixes(node), layers.keeps(node)) for node in convolutions(graph)]
    free, keeper, neither = (True, False), (False, True), (False, False)
    assert kinds == [free, keeper, neither, neither, free, neither, neither]
    assert all(len(data_of(node)) == 1 for node in convolutions(graph))


def test_a_convolution_of_a_parameter_is_neither() -> None:
    """Its input has no known shape after the conversion, which was an error."""
    image = nn.Parameter(torch.rand(1, 4, 5, 5))
    network = Network(lambda net, x: net.a(net.image) + x, a=conv(4, 4))
    network.image = image
    graph = quantize(network, [IMAGE], IMAGE)
    (found,) = convolutions(graph)
    assert not Layers(graph).mixes(found)
    assert not Layers(graph).keeps(found)


def test_operations_that_keep_the_order() -> None:
    network = nn.Sequential(nn.ReLU(), nn.MaxPool2d(2), nn.Softmax(1), nn.Flatten())
    graph = captured(network, IMAGE)
    layers = Layers(graph)
    found = {n.target for n in graph.graph.nodes if n.op == "call_function" and layers.keeps(n)}
    assert found == {aten.relu.default, aten.max_pool2d.default}


def test_a_new_order_of_int8_weights_is_that_of_the_outputs() -> None:
    graph = quantize(nn.Sequential(conv(4, 6), nn.ReLU(), conv(6, 3)), [IMAGE], IMAGE)
    before = graph(IMAGE)
    layers, (first, second) = Layers(graph), convolutions(graph)
    order = [3, 1, 5, 0, 2, 4]
    layers.reorder(first, order, 0)
    assert not torch.equal(graph(IMAGE), before)
    layers.reorder(second, order, 1)
    torch.testing.assert_close(graph(IMAGE), before)
    layers.reorder(second, [2, 0, 1], 0)
    torch.testing.assert_close(graph(IMAGE), before[:, [2, 0, 1]])
