"""Which nodes are quantised, and which values share one range."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from lit_compress.quantization.placement import Placement, is_rectifier

Forward = Callable[["Net", Tensor], Tensor]


class Net(nn.Module):
    def __init__(self, forward: Forward) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1)
        self.last = nn.Conv2d(4, 2, 1)
        self.wide = nn.Conv2d(8, 2, 1)
        self.by = forward

    def forward(self, x: Tensor) -> Tensor:
        return self.by(self, x)


def place(forward: Forward) -> tuple[Placement, dict[str, torch.fx.Node]]:
    program = torch.export.export(Net(forward).eval(), (torch.zeros(2, 3, 4, 4),))
    graph = program.module(check_guards=False)
    return Placement(graph, ["input"]), {node.name: node for node in graph.graph.nodes}


def quantized(placement: Placement) -> set[str]:
    return {node.name for node in placement.quantized}


def test_the_outputs_of_the_network_stay_float() -> None:
    placement, _ = place(lambda net, x: net.last(net.a(x)))
    assert quantized(placement) == {"conv2d"}
    assert [node.name for node in placement.inputs] == ["conv2d", "conv2d_1"]


def test_a_rectifier_is_folded_into_the_layer_that_it_alone_reads() -> None:
    placement, nodes = place(lambda net, x: net.last(net.a(x).relu()))
    assert placement.folded_into == {nodes["relu"]: nodes["conv2d"]}
    assert quantized(placement) == {"relu"}

    def twice(net: Net, x: Tensor) -> Tensor:
        y = net.a(x)
        return net.last(y.relu() + y)

    placement, _ = place(twice)
    assert placement.folded_into == {}
    assert quantized(placement) >= {"conv2d", "relu"}


def test_what_is_concatenated_has_one_range() -> None:
    placement, nodes = place(lambda net, x: net.wide(torch.cat([net.a(x), net.b(x)], 1)))
    ranges = {placement.range_of(nodes[name]) for name in ("conv2d", "conv2d_1", "cat")}
    assert len(ranges) == 1


def test_a_max_pool_has_the_range_of_what_it_reads_and_a_sum_its_own() -> None:
    placement, nodes = place(
        lambda net, x: net.last(nn.functional.max_pool2d(net.a(x), 2) + net.b(x)[:, :, :2, :2])
    )
    assert placement.range_of(nodes["max_pool2d"]) is placement.range_of(nodes["conv2d"])
    assert placement.range_of(nodes["add"]) is nodes["add"]


def test_a_value_that_is_moved_keeps_its_range() -> None:
    placement, nodes = place(lambda net, x: net.last(net.a(x).transpose(2, 3)))
    assert placement.range_of(nodes["transpose"]) is nodes["conv2d"]


def test_what_is_computed_from_a_float_value_stays_float() -> None:
    placement, _ = place(lambda net, x: net.last((net.a(x).exp() + net.b(x)).relu()))
    assert not quantized(placement) & {"exp", "add", "relu"}
    assert "add" not in {node.name for node in placement.inputs}


@pytest.mark.parametrize(
    ("forward", "name", "found"),
    [
        (lambda net, x: net.a(x).relu(), "relu", True),
        (lambda net, x: nn.functional.relu6(net.a(x)), "relu6", True),
        (lambda net, x: net.a(x).clamp(0, 6), "clamp", True),
        (lambda net, x: net.a(x).clamp(min=0), "clamp", False),
        (lambda net, x: net.a(x).sigmoid(), "sigmoid", False),
    ],
)
def test_a_clamp_is_a_rectifier_only_with_two_limits(
    forward: Forward, name: str, found: bool
) -> None:
    _, nodes = place(forward)
    (node,) = (node for key, node in nodes.items() if key in (name, f"{name}_default"))
    assert is_rectifier(node) is found
