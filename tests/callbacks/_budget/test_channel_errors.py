"""Errors of the outputs without some channels, in one process and in several."""

from __future__ import annotations

import copy
from collections.abc import Callable
from fractions import Fraction

import pytest
import torch
from conftest import loader, stripes
from evaluation.ranks.one_process import as_one
from lightning.pytorch import Trainer

from lit_compress.callbacks._budget.channel_errors import errors_without
from lit_compress.pruning import apply
from lit_compress.pruning.selection.uniform import UniformSelector

from .small import Wide


def test_they_are_those_of_the_smaller_network_and_of_several_processes(
    make_trainer: Callable[..., Trainer],
) -> None:
    module, trainer = Wide(), make_trainer()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    trainer.validate(module, loader(50), verbose=False)
    module.eval()
    images = stripes(50, 0).tensors[0]
    state = UniformSelector(Fraction(1, 2)).analyse(module, images[:2])
    groups = [group.channels for group in state.graph.groups]
    trials = [list(group[:count]) for group in groups for count in (3, 9)] + [[*groups[0], 60][:4]]
    found = errors_without(trainer, module, state, trials)

    expected = []
    for trial in trials:
        smaller = copy.deepcopy(module)
        apply(state.plan(frozenset(trial)), smaller)
        with torch.no_grad():
            whole, less = module(images).double(), smaller(images).double()
        expected.append(float((whole - less).square().sum() / whole.square().sum()))
    assert found == pytest.approx(expected, rel=1e-4)
    assert min(found) > 0

    before = {name: value.clone() for name, value in module.state_dict().items()}
    with as_one(trainer, 2) as team:
        assert errors_without(trainer, module, state, trials) == found  # bit for bit
    assert len(team.requests) == 1
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
