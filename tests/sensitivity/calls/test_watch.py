"""The calls of a run: who makes which tensor, who takes it last, and what changes in place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from lit_compress.sensitivity.calls.structure import stored_bytes
from lit_compress.sensitivity.calls.watch import structure_of


def test_values_know_the_calls_between_which_they_are_needed() -> None:
    x = torch.ones(4)

    def run() -> torch.Tensor:
        a = x + 1  # call 0
        b = a * 2  # call 1
        a.sub_(1)  # call 2
        return b + a  # call 3

    structure = structure_of(run)
    assert [call.name for call in structure.calls] == ["add", "mul", "sub", "add"]
    assert structure.calls[2].leaves == [-1]  # gives its first argument back
    first, second, last = structure.values
    assert (first.born, first.last, first.changed) == (0, 3, [2])
    assert (second.born, second.last, second.changed) == (1, 3, [])
    assert last.last is None
    assert structure.uses[id(x)] == 0
    assert stored_bytes(structure, [2]) == 32
    assert stored_bytes(structure, [1]) == 16


def test_forwards_that_give_one_tensor_alone_can_be_skipped() -> None:
    layers = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).eval()
    structure = structure_of(lambda: layers(torch.ones(1, 3)) + 1)
    names = [call.name for call in structure.calls]
    linear = [number for number, name in enumerate(names) if name == "linear"]
    spans = {(span.layer, span.start, span.end) for span in structure.spans}
    assert (layers[0], linear[0], linear[0] + 1) in spans
    assert (layers, linear[0], linear[1] + 1) in spans
    hooked = layers[0].register_forward_hook(lambda *_: None)
    watched = structure_of(lambda: layers(torch.ones(1, 3)) + 1)
    hooked.remove()
    assert {span.layer for span in watched.spans} == {layers[1], layers[2]}


def test_code_that_sees_the_calls_too_is_told() -> None:
    class Other(TorchFunctionMode):
        def __torch_function__(
            self,
            func: Callable[..., Any],
            types: Any,
            args: tuple[Any, ...] = (),
            kwargs: dict[str, Any] | None = None,
        ) -> Any:
            return func(*args, **(kwargs or {}))

    def run() -> torch.Tensor:
        return torch.ones(2) + 1

    assert not structure_of(run).intercepted
    with Other():
        assert structure_of(run).intercepted
