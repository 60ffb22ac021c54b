import pytest
import torch
from torch import nn

from lit_compress.pruning import analyse, make_plan
from lit_compress.pruning.channels.analysis import _traced
from lit_compress.pruning.channels.plan import Plan
from lit_compress.pruning.channels.trials.outputs import Run
from lit_compress.pruning.channels.trials.verify import Failure, try_plan


def tried(net: nn.Module, run: Run, plan: Plan) -> Failure | None:
    return try_plan(net, [run], plan, _traced(net, [run], {}))


@pytest.fixture
def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 3, groups=2)).eval()


def test_failure_names_the_call(net: nn.Module) -> None:
    x = torch.randn(2, 3, 8, 8)
    graph = analyse(net, x)
    plan = make_plan(graph, graph.channels[:1])
    failure = tried(net, lambda: net[0](x) + torch.ones(6, 1, 1), plan)
    assert failure is not None
    assert failure.place[0] == "add"
    assert failure.reason.file == "test_verify.py"


def test_result_of_another_value_fails(net: nn.Module) -> None:
    x = torch.randn(2, 3, 8, 8)
    graph = analyse(net, x)
    plan = make_plan(graph, graph.channels[:1])
    with torch.no_grad():
        assert tried(net, lambda: net(x), plan) is None
        failure = tried(net, lambda: net(x) * net[0].weight.shape[0], plan)
    assert failure is not None
    assert failure.place[0] == "mul"
