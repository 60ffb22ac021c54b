"""From which call a run can start, given what was seen of its calls."""

from __future__ import annotations

import torch
from torch import nn

from lit_compress.sensitivity.calls.structure import Value, tensors_of
from lit_compress.sensitivity.calls.watch import structure_of


def test_a_tensor_that_no_call_takes_asks_for_a_whole_run() -> None:
    model = nn.Linear(3, 2).eval()
    structure = structure_of(lambda: model(torch.ones(1, 3)))
    assert structure.cut([nn.Parameter(torch.ones(1))]) == 0


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
