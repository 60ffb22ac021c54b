"""Names and places of calls, and the layers around them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from lit_compress.pruning.channels.tracing.calls import call_name, caller, layer_calls


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (torch.relu, "relu"),
        (Tensor.add_, "add"),
        (Tensor.__add__, "add"),
        (torch.Tensor.shape.__get__, "get shape"),
        (torch.ops.aten.add.Tensor, "add"),
        (nn.functional.conv2d, "conv2d"),
    ],
)
def test_variants_of_a_function_have_one_name(function: Callable[..., Any], name: str) -> None:
    assert call_name(function) == name


class Places(TorchFunctionMode):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, int]] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.found.append(caller())
        return func(*args, **(kwargs or {}))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer(x)
        return out


def test_the_place_is_the_line_of_the_model_and_not_that_of_torch() -> None:
    with Places() as places:
        Net()(torch.ones(1, 2))
    line = Net.forward.__code__.co_firstlineno + 1
    assert (__file__, line) in places.found


def test_layers_are_entered_and_left_and_the_hooks_go() -> None:
    network, seen = Net(), list[str]()
    names = {id(module): name or "net" for name, module in network.named_modules()}
    with layer_calls(
        lambda layer, _: seen.append(f"in {names[id(layer)]}"),
        lambda layer, *_: seen.append(f"out {names[id(layer)]}"),
    ):
        network(torch.ones(1, 2))
    assert seen == ["in net", "in layer", "out layer", "out net"]
    network(torch.ones(1, 2))
    assert len(seen) == 4


def test_the_hooks_go_after_an_error_too() -> None:
    seen = list[nn.Module]()
    with (
        pytest.raises(RuntimeError),
        layer_calls(lambda layer, _: seen.append(layer), lambda *_: None),
    ):
        Net()(torch.ones(1, 3))
    count = len(seen)
    Net()(torch.ones(1, 2))
    assert len(seen) == count
