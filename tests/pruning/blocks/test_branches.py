from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from lit_compress.pruning.blocks.branches import Branch, branch_of, is_zero, needed_calls, sums_of
from lit_compress.pruning.blocks.stand_in import StandIn
from lit_compress.pruning.channels.tracing.labels import Reason
from pruning.blocks.test_flow import followed


class Net(nn.Module):
    def __init__(self, forward: Callable[[Net, Tensor], Tensor]) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(3, 3), nn.Linear(3, 3)
        self.drop, self.scale = nn.Dropout(0.1), nn.Parameter(torch.ones(3))
        self.zero, self.own = StandIn("zero"), forward

    def forward(self, x: Tensor) -> Tensor:
        return self.own(self, torch.tanh(x)) * 1.0


def branch(forward: Callable[[Net, Tensor], Tensor], at: int = 0) -> Branch | Reason:
    flow = followed(Net(forward).eval(), torch.ones(2, 3))
    return branch_of(flow, sums_of(flow)[at])


@pytest.mark.parametrize(
    ("forward", "kinds"),
    [
        (lambda n, x: x + n.one(x), {"one": "zero"}),
        (lambda n, x: n.two(torch.relu(n.one(x))) + x, {"one": "identity", "two": "zero"}),
        (lambda n, x: x + n.drop(n.one(x)), {"one": "zero", "drop": "identity"}),
        (lambda n, x: x + n.scale * n.one(x), {"one": "zero"}),
        (lambda n, x: x + n.one(x) * n.two(x), {"one": "zero", "two": "identity"}),
        (lambda n, x: x + n.one(x).reshape(2, 3), {"one": "zero"}),
    ],
)
def test_the_modules_of_a_branch(
    forward: Callable[[Net, Tensor], Tensor], kinds: dict[str, str]
) -> None:
    found = branch(forward)
    assert isinstance(found, Branch), found
    assert found.kinds("zero") == kinds


def test_what_others_need_stays() -> None:
    def forward(net: Net, x: Tensor) -> Tensor:
        inner = net.one(x)
        return (x + net.two(inner)) * inner.mean()

    found = branch(forward)
    assert isinstance(found, Branch)
    assert found.kinds("zeros") == {"two": "zeros"}  # the other layer is needed behind the sum


@pytest.mark.parametrize(
    ("forward", "why"),
    [
        (lambda n, x: n.one(x) + n.two(x), "none of them is computed from the other"),
        (lambda n, x: x + n.scale, "none of them is computed from the other"),
        (lambda n, x: x + functional.linear(x, n.one.weight), "no module of its own ends"),
        (lambda n, x: x + torch.sigmoid(n.one(x)), "no module of its own ends"),
        (lambda n, x: x + n.one(n.one(x)), "called more than once"),
    ],
)
def test_what_is_no_branch_says_why(forward: Callable[[Net, Tensor], Tensor], why: str) -> None:
    found = branch(forward)
    assert isinstance(found, Reason)
    assert re.search(why, str(found)), str(found)


def test_calls_that_nothing_needs() -> None:
    flow = followed(Net(lambda n, x: x + n.one(x)).eval(), torch.ones(2, 3))
    (add,) = sums_of(flow)
    assert needed_calls(flow) - needed_calls(flow, {add: 1}) == {1}


def test_the_place_of_a_removed_branch_is_known() -> None:
    flow = followed(Net(lambda n, x: x + n.scale * n.zero(x) + n.one(x)).eval(), torch.ones(2, 3))
    first, second = sums_of(flow)
    assert [is_zero(flow, first, at) for at in (0, 1)] == [False, True]
    assert not any(is_zero(flow, second, at) for at in (0, 1))
