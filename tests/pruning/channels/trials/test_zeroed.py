"""Layers read zeros in the place of the channels that a plan removes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lit_compress.pruning import analyse, make_plan
from lit_compress.pruning.channels.analysis import _traced
from lit_compress.pruning.channels.plan import Plan
from lit_compress.pruning.channels.tracing.modules import named_tensors
from lit_compress.pruning.channels.trials.verify import _expected
from lit_compress.pruning.channels.trials.zeroed import ZeroedInputs


def unread(model: nn.Module, plan: Plan, x: Tensor) -> ZeroedInputs:
    """Return the mode in which nothing reads the channels of a plan."""
    trace = _traced(model, [lambda: model(x)], {})
    return ZeroedInputs(trace.recording, _expected(trace, plan).removed)


@torch.no_grad()
def test_unread_channels_are_zero_where_they_are_read() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 3, groups=2)).eval()
    x = torch.randn(2, 3, 8, 8)
    graph = analyse(net, x)
    plan = make_plan(graph, graph.channels[:1])
    with unread(net, plan, x):
        found = net(x)
    for cut in plan.cuts:
        if graph.roles[cut.tensor, cut.dim] == "input":
            removed = sorted(set(range(cut.size)) - set(cut.keep))
            named_tensors(net)[cut.tensor].index_fill_(cut.dim, torch.tensor(removed), 0)
    torch.testing.assert_close(found, net(x))


class Product(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.weight = nn.Linear(3, 6), nn.Parameter(torch.randn(6, 2))

    def forward(self, x: Tensor) -> Tensor:
        return self.first(x) @ self.weight


@torch.no_grad()
def test_a_product_with_a_bare_weight_reads_zeros_too() -> None:
    """Such a call has two arguments, and a convolution has more."""
    model, x = Product(), torch.randn(4, 3)
    graph = analyse(model, x)
    assert len(graph.channels) == 6
    with unread(model, make_plan(graph, graph.channels[:2]), x):
        found = model(x)
    torch.testing.assert_close(found, model.first(x)[:, 2:] @ model.weight[2:])
