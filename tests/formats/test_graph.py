"""Graphs of other runtimes give the outputs of the graph that the ONNX file is written from."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, fx, nn

from lit_compress.formats.graph import captured, fold, quantize_weights, signed, unfused
from lit_compress.quantization.convert import WithPreprocessing, quantize


class Pixels(nn.Module):
    def forward(self, pixels: Tensor) -> Tensor:
        return pixels.float() / 255


@pytest.fixture(scope="module")
def network() -> fx.GraphModule:
    """A small network whose last layer has a float output."""
    torch.manual_seed(0)
    layers = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU6(),
        nn.Conv2d(8, 8, 3, groups=8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 4),
    ).eval()
    images = torch.rand(16, 3, 8, 8)
    return quantize(layers, [images], images[:2])


IMAGES = torch.rand(5, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def graph_of(network: nn.Module) -> fx.GraphModule:
    return captured(network, [IMAGES])


def types(graph: fx.GraphModule) -> set[object]:
    return {
        node.args[-1]
        for node in graph.graph.nodes
        if "quantize_per_tensor" in str(node.target) and node.op == "call_function"
    }


def test_signed_activations_change_nothing(network: fx.GraphModule) -> None:
    graph = graph_of(network)
    assert torch.uint8 in types(graph)
    signed(graph)
    assert types(graph) == {torch.int8}
    assert torch.equal(graph(IMAGES), network(IMAGES))


def test_only_the_layer_with_a_float_output_is_unfused(network: fx.GraphModule) -> None:
    graph = graph_of(network)
    (weight,) = unfused(graph)
    (reader,) = weight.users
    assert "linear" in str(reader.target)


def test_a_folded_weight_changes_nothing(network: fx.GraphModule) -> None:
    graph = graph_of(network)
    fold(graph, unfused(graph))
    assert not unfused(graph)
    assert torch.equal(graph(IMAGES), network(IMAGES))


def test_weights_that_are_quantised_in_the_graph_change_nothing(network: fx.GraphModule) -> None:
    graph = graph_of(network)
    quantize_weights(graph)
    targets = [str(node.target) for node in graph.graph.nodes]
    assert sum("quantized_decomposed.quantize_per_channel" in target for target in targets) == 3
    assert torch.equal(graph(IMAGES), network(IMAGES))


def test_the_network_itself_stays(network: fx.GraphModule) -> None:
    before = network(IMAGES)
    graph = graph_of(network)
    signed(graph)
    fold(graph, unfused(graph))
    quantize_weights(graph)
    assert torch.equal(network(IMAGES), before)


def test_raw_pixels_are_part_of_the_graph(network: fx.GraphModule) -> None:
    pixels = (IMAGES * 255).to(torch.uint8)
    whole = WithPreprocessing(Pixels(), network)
    graph = captured(whole, [pixels])
    signed(graph)
    assert torch.equal(graph(pixels), whole(pixels))
