"""A module has another hash as soon as it computes otherwise."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy

import pytest
import torch
from conftest import ForeignModule
from torch import nn

from lit_compress.evaluation.last_validation.fingerprint import fingerprint


def through_data(module: ForeignModule) -> None:
    """A change that no version counter of a tensor shows."""
    module.net[0].weight.data[0, 0, 0, 0] += 1e-6


def a_mean_of_a_norm(module: ForeignModule) -> None:
    module.net[1].running_mean[0] += 1e-6


def a_number(module: ForeignModule) -> None:
    module.net[1].eps = 1e-3


def another_order(module: ForeignModule) -> None:
    bias = module.net[3].bias
    bias.data = bias.data.flip(0)


@pytest.mark.parametrize("change", [through_data, a_mean_of_a_norm, a_number, another_order])
def test_a_change_is_seen(foreign: ForeignModule, change: Callable[[ForeignModule], None]) -> None:
    before = fingerprint(foreign)
    change(foreign)
    assert fingerprint(foreign) != before


def test_copies_have_the_same(foreign: ForeignModule) -> None:
    half = foreign.half()
    assert fingerprint(deepcopy(half).float().eval()) == fingerprint(half.train())


def test_a_tensor_without_numbers_has_none() -> None:
    layer = nn.Linear(2, 2)
    layer.register_buffer("mask", torch.eye(2).to_sparse())
    assert fingerprint(layer) is None
