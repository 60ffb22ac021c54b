from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from lit_compress.pruning import analyse, make_plan
from lit_compress.pruning.channels.analysis import _traced
from lit_compress.pruning.channels.plan import Plan
from lit_compress.pruning.channels.tracing.trace import named_tensors
from lit_compress.pruning.channels.trials.verify import (
    Failure,
    Run,
    _close,
    _perturbed,
    tensors_in,
    try_plan,
)


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


def test_vectors_and_constants_are_perturbed_and_weights_are_not() -> None:
    model = nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3), nn.Linear(3, 2, bias=False))
    nn.init.zeros_(model[2].weight)
    model.register_parameter("gain", nn.Parameter(torch.zeros(())))
    perturbed = _perturbed(named_tensors(model))
    assert set(perturbed) == {"0.bias", "1.weight", "1.bias", "2.weight", "gain"}
    assert all(value.ne(0).all() for value in perturbed.values())


def test_tensors_are_found_in_any_container() -> None:
    @dataclass
    class Held:
        value: object

    class Slots:
        __slots__ = ("unset", "value")

    slots = Slots()
    slots.value = torch.ones(1)
    value = {"a": [torch.ones(2), Held((torch.ones(3), slots))], "b": 3, "c": nn.Linear(1, 1)}
    assert [len(tensor) for tensor in tensors_in(value)] == [2, 3, 1]


@pytest.mark.parametrize(
    ("one", "other", "agree"),
    [
        (torch.ones(3), torch.ones(3) + 1e-6, True),
        (torch.ones(3), torch.ones(3) + 5e-4, False),
        (torch.ones(3), torch.ones(4), False),
        (torch.ones(3).bfloat16(), torch.ones(3).bfloat16() * 1.02, True),
        (torch.tensor([1.0, torch.nan]), torch.tensor([1.0, torch.nan]), True),
        (torch.tensor([1.0, torch.nan]), torch.tensor([1.0, 1.0]), False),
        (torch.arange(9), torch.arange(9).index_fill(0, torch.tensor([0]), 5), True),
        (torch.arange(9), torch.arange(9) + 1, False),
        (torch.ones(2) * 1j, torch.ones(2) * 2j, False),
        (torch.zeros(0), torch.zeros(0), True),
        (torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64), True),
    ],
)
def test_results_agree_within_the_rounding_of_their_type(
    one: Tensor, other: Tensor, agree: bool
) -> None:
    assert _close(one, other) is agree
