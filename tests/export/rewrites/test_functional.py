"""Writes in place are replaced: the graph computes the same, and no value changes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from lit_compress.errors import ExportError
from lit_compress.export.onnx import capture
from lit_compress.quantization.rewrites.norms import NORMS


class Between(nn.Module):
    """A function between a convolution with a norm and another convolution."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function
        self.first = nn.Conv2d(2, 6, 3)
        self.norm = nn.BatchNorm2d(6)
        self.last = nn.Conv2d(6, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.function(self.norm(self.first(x))))


def half(x: Tensor) -> Tensor:
    x[:, :3] = torch.relu(x[:, :3])
    return x


def tail(x: Tensor) -> Tensor:
    x[:, :, :, 2:] = 0
    return x


def view(x: Tensor) -> Tensor:
    x.flatten(2).mul_(0.5)
    x.transpose(1, 2)[:, 0].clamp_(min=0)
    return x


def masked(x: Tensor) -> Tensor:
    x[x > 0.5] = 0.5
    return x


def read_before(x: Tensor) -> Tensor:
    mean = x.mean()
    x.add_(1)
    return x * mean


def chain(x: Tensor) -> Tensor:
    return torch.relu_(x).add_(1).mul_(x.mean())


FUNCTIONS = [half, tail, view, masked, read_before, chain]


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__name__)
def test_nothing_is_written_in_place(function: Callable[[Tensor], Tensor]) -> None:
    """A part of an activation was written behind a copy of it: 3.0 dB, where 49.7 are right."""
    torch.manual_seed(0)
    network = Between(function).eval()
    graph = capture(network, torch.randn(2, 2, 6, 6)).module(check_guards=False)
    mutable = [n.target for n in graph.graph.nodes if getattr(n.target, "_schema", None)]
    assert not [target for target in mutable if target._schema.is_mutable]
    assert len([n for n in graph.graph.nodes if n.target in NORMS]) == 1
    x = torch.randn(5, 2, 6, 6)
    with torch.no_grad():
        torch.testing.assert_close(graph(x), network(x))


def test_inputs_are_not_written_to() -> None:
    """A forward that scales its input in place scaled the calibration batches again and again."""

    class Scale(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.mul_(2) + 1

    graph = capture(Scale(), torch.ones(2, 3)).module(check_guards=False)
    x = torch.ones(4, 3)
    torch.testing.assert_close(graph(x), torch.full((4, 3), 3.0))
    assert torch.equal(x, torch.ones(4, 3))


class Counting(nn.Module):
    def __init__(self, use: bool) -> None:
        super().__init__()
        self.use = use
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x * self.calls if self.use else x * 2


def test_a_counter_that_nothing_reads_is_left_out() -> None:
    network = Counting(use=False)
    graph = capture(network, torch.ones(2, 3)).module(check_guards=False)
    graph(torch.ones(2, 3))
    assert network.calls == 0


def test_a_memory_between_calls_is_refused_by_name() -> None:
    with pytest.raises(ExportError, match=r"writes to calls in eval mode.*no memory"):
        capture(Counting(use=True), torch.ones(2, 3))
