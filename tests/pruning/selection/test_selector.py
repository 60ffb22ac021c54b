"""What both selectors do alike, as a pruning callback asks it of them."""

from __future__ import annotations

import copy
from fractions import Fraction

import pytest
import torch
from torch import nn

from lit_compress.pruning.rules.rule import Rule
from lit_compress.pruning.selection.by_rules import RuleSelector, channel_rules
from lit_compress.pruning.selection.selector import LAST_STEP, ChannelSelector, PruningStep
from lit_compress.pruning.selection.uniform import UniformSelector

X = torch.zeros(2, 3, 4, 4)
HALF = Fraction(1, 2)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 16, 1), nn.ReLU(), nn.Conv2d(16, 2, 1)
    )


@pytest.fixture(params=["uniform", "rules"])
def selector(request: pytest.FixtureRequest) -> ChannelSelector:
    if request.param == "uniform":
        return UniformSelector(HALF)
    rules = (Rule("0", HALF, "0"), Rule("2", HALF, "2"))
    return RuleSelector(channel_rules(network(), rules))


def test_the_last_step_selects_half_of_each_layer(selector: ChannelSelector) -> None:
    module = network()
    state = selector.analyse(module, X)
    found = selector.select(module, state, LAST_STEP)
    cuts = {cut.tensor: cut for cut in state.plan(found.selected).cuts if cut.dim == 0}
    assert {name: len(cut.keep) for name, cut in cuts.items() if "weight" in name} == {
        "0.weight": 4,
        "2.weight": 8,
    }
    assert selector.removes
    assert (selector.of, selector.round_to, selector.min_channels) == ("filters", 1, 1)


def test_each_step_keeps_what_the_one_before_selected(selector: ChannelSelector) -> None:
    module = network()
    state = selector.analyse(module, X)
    counts = []
    for index in range(4):
        before = state.selected
        state.select(
            selector.select(module, state, PruningStep(Fraction(index + 1, 4), index)).selected
        )
        assert before <= state.selected
        counts.append(len(state.selected))
    assert counts == sorted(set(counts))
    assert counts[-1] == 12


def test_nothing_is_selected_before_the_schedule_begins(selector: ChannelSelector) -> None:
    module = network()
    state = selector.analyse(module, X)
    assert not selector.select(module, state, PruningStep(Fraction(0))).selected


def test_a_network_that_is_analysed_and_previewed_does_not_change(
    selector: ChannelSelector,
) -> None:
    module = network()
    before = copy.deepcopy(module.state_dict())
    state = selector.analyse(module, X)
    preview = selector.preview(module, state, selector.select(module, state))
    assert [(layer.filters, layer.kept) for layer in preview.layers] == [(8, 4), (16, 8), (2, 2)]
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert not selector.gradient_importances()
