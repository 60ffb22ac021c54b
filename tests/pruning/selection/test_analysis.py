"""The state of an unpruned network, and the scores of its channels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lit_compress.errors import PatternError
from lit_compress.measure import cost
from lit_compress.pruning.importance import L1, L2, Taylor
from lit_compress.pruning.selection.analysis import (
    analyse_network,
    count_filters,
    current_scores,
    left_over,
    parameter_names,
)
from lit_compress.pruning.selection.state import PruningState

X = torch.zeros(2, 3)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2))


def state_of(module: nn.Module) -> PruningState:
    return analyse_network(module, X, "", lambda graph: range(len(graph.groups)), ["4.weight"])


def test_costs_are_those_of_the_whole_network() -> None:
    module = network()
    state, whole = state_of(module), cost(module, X)
    assert (state.budget.parameters, state.budget.macs) == (whole.parameters, whole.macs)
    assert state.budget.filters == count_filters(state.graph, [0, 1]) == 14
    assert count_filters(state.graph, [1]) == 8
    assert state.untrained == {"4.weight"}


class Wave(nn.Module):
    """Adds a transform of which no products are known."""

    def __init__(self) -> None:
        super().__init__()
        self.net = network()

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x + torch.fft.rfft(x).abs().sum())


def test_macs_that_are_not_known_are_said_and_are_not_left_over() -> None:
    module = Wave()
    state = analyse_network(module, X, "", lambda graph: range(len(graph.groups)), [])
    assert state.budget.uncounted == ("_fft_r2c",)
    assert state.budget.macs == 3 * 6 + 6 * 8 + 8 * 2
    assert PruningState.from_dict(state.to_dict()).budget == state.budget
    state.select(frozenset(state.graph.groups[0].channels[:2]))
    assert left_over([state], module) == {"parameters": 4 * 4 + 8 * 5 + 2 * 9}


def test_what_is_left_over_is_what_the_smaller_network_has() -> None:
    module = network()
    state = state_of(module)
    state.select(frozenset(state.graph.groups[0].channels[:2]))
    left = left_over([state], module)
    assert left == {"parameters": 4 * 4 + 8 * 5 + 2 * 9, "macs": 3 * 4 + 4 * 8 + 8 * 2}


def test_a_weight_that_is_nan_is_named() -> None:
    module = network()
    with torch.no_grad():
        module[2].weight[1, 2] = torch.nan
    with pytest.raises(PatternError, match=r"2\.weight"):
        state_of(module)


def scores_by_hand(module: nn.Module, state: PruningState, norm: int) -> np.ndarray:
    found = np.full(state.graph.channel_count, np.nan)
    for index, layer in enumerate((module[0], module[2])):
        rows = layer.weight.detach().double().norm(norm, dim=1).numpy()
        for number, row in zip(state.graph.groups[index].channels, rows, strict=True):
            found[number] = row
    return found


@pytest.mark.parametrize(("importance", "norm"), [(L1(), 1), (L2(), 2)])
def test_the_order_of_scores_is_that_of_the_norms(importance: L1 | L2, norm: int) -> None:
    module = network()
    state = state_of(module)
    found, wanted = current_scores(module, state, importance), scores_by_hand(module, state, norm)
    for group in state.graph.groups:
        channels = list(group.channels)
        assert np.argsort(found[channels]).tolist() == np.argsort(wanted[channels]).tolist()


def test_a_selected_channel_has_no_score_and_others_are_scored_without_it() -> None:
    module = network()
    state = state_of(module)
    selected = frozenset(state.graph.groups[0].channels[:2])
    state.select(selected)
    found = current_scores(module, state, L2())
    assert np.isnan(found[list(selected)]).all()
    with torch.no_grad():
        module[2].weight[:, :2] = 0  # what the removed channels would have given
    rest = [n for group in state.graph.groups for n in group.channels if n not in selected]
    np.testing.assert_allclose(found[rest], current_scores(module, state, L2())[rest])
    assert np.isfinite(found[rest]).all()


def test_given_scores_are_used_without_those_of_selected_channels() -> None:
    module = network()
    state = state_of(module)
    channels = list(state.graph.groups[0].channels)
    state.select(frozenset(channels[:1]))
    given = {"0.weight": torch.arange(6.0), "2.weight": torch.ones(8)}
    found = current_scores(module, state, Taylor(), given)[channels]
    assert np.isnan(found[0])
    assert np.argsort(found[1:]).tolist() == [0, 1, 2, 3, 4]


def test_a_tensor_with_two_names_is_one_parameter() -> None:
    module = network()
    module.again = module[4]
    assert parameter_names(module) == {
        f"{n}.{kind}" for n in (0, 2, 4) for kind in ("weight", "bias")
    }
