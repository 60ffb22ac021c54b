"""The calls of a run: who makes which tensor, who takes it last, and what changes in place."""

from __future__ import annotations

import torch
from torch import nn

from lit_compress.sensitivity.calls import Value, stored_bytes, structure_of, tensors_of


def test_a_tensor_that_no_call_takes_asks_for_a_whole_run() -> None:
    model = nn.Linear(3, 2).eval()
    structure = structure_of(lambda: model(torch.ones(1, 3)))
    assert structure.cut([nn.Parameter(torch.ones(1))]) == 0


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


def test_what_is_never_taken_may_be_needed_at_any_time() -> None:
    assert Value(3).crosses(100)
    assert not Value(3).crosses(3)
    assert not Value(3, last=7).crosses(8)


def test_no_run_starts_between_two_views_of_what_changes_later() -> None:
    layer, x = nn.Linear(4, 4), torch.ones(2, 4)

    def run() -> torch.Tensor:
        a = x * 2  # call 0
        b = a[:, :2]  # call 1: the same memory
        y = layer(a)  # call 2
        b.zero_()  # call 3: changes a too
        return y + a

    structure = structure_of(run)
    assert structure.uses[id(layer.weight)] == 2
    assert structure.cut([layer.weight]) < 2


def test_tensors_are_found_in_containers() -> None:
    one, two = torch.ones(1), torch.zeros(1)
    assert tensors_of(([one, 3], {"a": (two, "x")})) == [one, two]
