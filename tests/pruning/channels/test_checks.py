"""A plan that cannot be applied is refused before anything is cut."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from lit_compress.errors import PlanError
from lit_compress.pruning import Cut, Plan, apply


@pytest.fixture
def net() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 8, 1), nn.InstanceNorm2d(8), nn.GroupNorm(4, 8, affine=False))


CUT = Cut("0.weight", 0, 8, (0, 1, 2, 3))


@pytest.mark.parametrize(
    ("norms", "message"),
    [
        ({"7": 4}, "channels in 7, which does not exist"),
        ({"0": 4}, "channels in 0, which does not exist"),
        ({"1": 9}, "which has 8"),
        ({"2": -3}, "keeps -3 channels"),
    ],
)
def test_norms_of_another_network_are_refused_before_anything_is_cut(
    net: nn.Sequential, norms: dict[str, int], message: str
) -> None:
    """Weights were cut before the norm was looked for, and an unknown one was passed over."""
    before = copy.deepcopy(net.state_dict())
    with pytest.raises(PlanError, match=message):
        apply(Plan((CUT,), norms), net)
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())
    assert net[0].out_channels == 8


def test_optimizer_of_another_module_is_refused(net: nn.Sequential) -> None:
    """It was passed over, and its state kept the old shapes."""
    other = torch.optim.SGD(nn.Linear(2, 2).parameters(), lr=0.1)
    with pytest.raises(PlanError, match="holds no parameter of the module"):
        apply(Plan((CUT,)), net, other)
    assert net[0].weight.shape[0] == 8


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (({"format": 1}, nn.Linear(2, 2)), r"Plan\.from_dict"),
        ((Plan(), "net"), "a module or an optimizer, got str"),
        ((Plan(), nn.Linear(2, 2), "adam"), "a torch optimizer, got str"),
    ],
)
def test_what_is_no_plan_module_or_optimizer_is_named(
    arguments: tuple[Any, ...], message: str
) -> None:
    with pytest.raises(PlanError, match=message):
        apply(*arguments)
