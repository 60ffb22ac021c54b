from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from lit_compress.pruning.blocks.zeroed import ZeroedBranches


def test_a_summand_is_zero_in_one_sum_only() -> None:
    x, y = torch.ones(3), torch.full((3,), 5.0)
    with ZeroedBranches({1: 1}):
        first, second, third = x + y, x + y, x + y
    assert (first[0], second[0], third[0]) == (6, 1, 6)
    assert y.tolist() == [5, 5, 5]


def test_a_summand_that_changes_in_place_is_zeroed_itself() -> None:
    branch, one = torch.full((3,), 5.0), torch.ones(3)
    with ZeroedBranches({2: 0}):  # the second call makes the list
        branch.add_(one)
        before = branch.tolist()
        branch += one
    assert before == [6, 6, 6]
    assert branch.tolist() == [1, 1, 1]


@pytest.mark.parametrize("other", [lambda x: x * x, lambda x: x + 1])
def test_another_call_at_the_number_of_a_sum_is_an_error(
    other: Callable[[torch.Tensor], torch.Tensor],
) -> None:
    x = torch.ones(2)
    with pytest.raises(RuntimeError, match="another call in each run"), ZeroedBranches({0: 1}):
        other(x)


def test_a_nan_in_a_branch_becomes_zero() -> None:
    nan, one = torch.full((2,), float("nan")), torch.ones(2)
    with ZeroedBranches({0: 0}):
        out = nan + one
    assert out.tolist() == [1, 1]
