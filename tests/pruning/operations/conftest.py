"""One operation between two layers: what can go of the first, and whether the rest computes on."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from lit_compress.pruning import ChannelGraph, analyse, apply, make_plan
from lit_compress.pruning.trace import named_tensors

Operation = Callable[[nn.Module, Tensor], Tensor]


class Between(nn.Module):
    """A conv, an operation that may use further layers, and a linear layer over all it gives."""

    def __init__(self, operation: Operation, width: int, **more: nn.Module | nn.Parameter) -> None:
        super().__init__()
        for name, layer in more.items():
            setattr(self, name, layer)
        self.first = nn.Conv2d(3, width, 1)
        self.operation = operation
        self.last = nn.LazyLinear(2)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.operation(self, self.first(x)).flatten(1))


@pytest.fixture
def between() -> Callable[..., ChannelGraph]:
    """Build, analyse, remove half of each group, and compare with zeros in what would read it."""

    @torch.no_grad()
    def check(operation: Operation, width: int = 8, **more: nn.Module) -> ChannelGraph:
        torch.manual_seed(0)
        net = Between(operation, width, **more).double().eval()
        x = torch.randn(2, 3, 4, 4, dtype=torch.float64)
        net(x)
        graph = analyse(net, x)
        gone = [n for g in graph.groups for n in g.classes[: min(graph.removable(g), width // 2)]]
        plan = make_plan(graph, gone)
        twin = copy.deepcopy(net)
        for cut in plan.cuts:
            if graph.roles[cut.tensor, cut.dim] == "input":
                index = torch.tensor(sorted(set(range(cut.size)) - set(cut.keep)))
                named_tensors(twin)[cut.tensor].data.index_fill_(cut.dim, index, 0)
        apply(plan, net)
        torch.testing.assert_close(net(x), twin(x))
        return graph

    return check
