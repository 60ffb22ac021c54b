from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from lit_compress.pruning.channels.trials.outputs import close, tensors_in


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
    assert close(one, other) is agree
