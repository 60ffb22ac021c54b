"""The ledger: what is gone, decided and left, kept with a checkpoint."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from lit_compress.errors import PlanError
from lit_compress.measure import cost
from lit_compress.pruning import analyse, apply
from lit_compress.pruning.channels.tracing.modules import named_tensors
from lit_compress.pruning.selection.analysis import parameter_names
from lit_compress.pruning.selection.state import PruningState, pruning_state_of
from lit_compress.pruning.selection.uniform import UniformSelector

IMAGES = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 1, groups=8)),
        *(nn.InstanceNorm2d(8), nn.Conv2d(8, 6, 3), nn.PReLU(6), nn.Flatten()),
        nn.Linear(24, 2),
    ).eval()


@pytest.fixture
def state(net: nn.Sequential) -> PruningState:
    return UniformSelector(Fraction(1, 2)).analyse(net, IMAGES)


def some(state: PruningState, share: float, seed: int = 0) -> frozenset[int]:
    """Return a random share of each group's classes."""
    random = np.random.default_rng(seed)
    return frozenset(
        number
        for group in state.graph.groups
        for number in random.permutation(group.channels)[
            : int(share * len(group.channels))
        ].tolist()
    )


def test_what_is_removed_in_steps_is_what_is_removed_at_once(
    net: nn.Sequential, state: PruningState
) -> None:
    twin, selected = copy.deepcopy(net), some(state, 0.75)
    apply(state.plan(selected), twin)
    half = frozenset(sorted(selected)[::2])
    for step in (frozenset(), half, selected, selected):
        apply(state.plan(step), net)
        state.select(step)
        state.commit()
        left = state.current_graph()
        own = named_tensors(net)
        assert all(tuple(own[name].shape) == shape for name, shape in left.shapes.items())
        assert set(left.channels) == set(state.graph.channels) - step
    assert all(torch.equal(t, twin.state_dict()[n]) for n, t in net.state_dict().items())
    assert net[4].num_features == twin[4].num_features == 2


def test_what_is_left_is_what_a_new_analysis_finds(net: nn.Sequential, state: PruningState) -> None:
    selected = some(state, 0.5)
    apply(state.plan(selected), net)
    state.select(selected)
    state.commit()
    left, anew = state.current_graph(), analyse(net, IMAGES)
    assert left.shapes == anew.shapes
    assert left.roles == anew.roles
    assert left.widths.keys() == anew.widths.keys()
    for key, channels in left.channel_of.items():
        names = {number: index for index, number in enumerate(dict.fromkeys(channels.tolist()))}
        others = {n: index for index, n in enumerate(dict.fromkeys(anew.channel_of[key].tolist()))}
        assert [names[n] for n in channels.tolist()] == [
            others[n] for n in anew.channel_of[key].tolist()
        ]


def test_masks_hold_what_is_decided_and_not_yet_removed(
    net: nn.Sequential, state: PruningState
) -> None:
    first, selected = some(state, 0.25), some(state, 0.5)
    assert first < selected
    apply(state.plan(first), net)
    state.select(first)
    state.commit()
    state.select(selected)
    parameters = dict(net.named_parameters())
    masks = state.masks(parameters)
    held = copy.deepcopy(net)
    apply(state.plan(selected), held)
    for name, parameter in parameters.items():
        mask = masks.get(name, torch.ones(parameter.shape, dtype=torch.bool))
        assert torch.equal(parameter[mask], held.get_parameter(name).flatten()), name
    assert masks.keys() <= parameters.keys()
    assert {"0.weight", "0.bias", "3.weight", "6.weight", "8.weight"} <= masks.keys()


def test_nothing_decided_masks_nothing(net: nn.Sequential, state: PruningState) -> None:
    assert state.masks(dict(net.named_parameters())) == {}
    assert state.plan(frozenset()).cuts == ()


def test_savings_are_those_of_the_smaller_network(net: nn.Sequential, state: PruningState) -> None:
    before, names = cost(net, IMAGES), parameter_names(net)
    assert state.total("parameters") == before.parameters
    assert state.total("macs") == before.macs
    assert state.total("filters") == 8 + 8 + 6
    selected = some(state, 0.5)
    apply(state.plan(selected), net)
    after = cost(net, IMAGES)
    assert state.saved("parameters", names) == 0
    assert state.saved("parameters", names, selected) == before.parameters - after.parameters
    assert state.saved("macs", names, selected) == before.macs - after.macs
    assert state.saved("filters", names, selected) == 4 + 4 + 3
    state.select(selected)
    assert state.saved("macs", names) == before.macs - after.macs


def stored(state: PruningState) -> dict[str, Any]:
    file = io.BytesIO()
    torch.save(state.to_dict(), file)
    file.seek(0)
    content: dict[str, Any] = torch.load(file, weights_only=True)
    return content


def test_a_stored_state_is_restored(net: nn.Sequential, state: PruningState) -> None:
    state.select(some(state, 0.25))
    state.commit()
    state.select(some(state, 0.5))
    found = PruningState.from_dict(stored(state))
    assert (found.selected, found.removed) == (state.selected, state.removed)
    assert found.budget == state.budget
    assert found.plan(some(state, 0.75)) == state.plan(some(state, 0.75))
    assert found.unpruned_shapes() == state.unpruned_shapes()
    assert found.graph.groups == state.graph.groups
    assert found.graph.channel_count == state.graph.channel_count
    for number in state.graph.channels:
        assert found.graph.slices(number) == state.graph.slices(number)
    assert all(isinstance(number, int) for number in found.selected)


def test_the_record_is_of_what_is_removed_not_of_what_is_held(
    net: nn.Sequential, state: PruningState
) -> None:
    state.select(some(state, 0.25))
    state.commit()
    state.select(some(state, 0.5))
    original = state.unpruned_shapes()
    assert original.shapes["0.weight"] == (8, 3, 3, 3)
    assert original.widths == {"4": 6}


Change = Callable[[dict[str, Any]], Any]


def setting(key: str, value: Any) -> Change:
    return lambda content: {**content, key: value}


def in_graph(key: str, value: Any) -> Change:
    return lambda content: {**content, "graph": {**content["graph"], key: value}}


def in_row(key: str, value: Any) -> Change:
    def change(content: dict[str, Any]) -> dict[str, Any]:
        rows = [dict(row) for row in content["graph"]["owners"]]
        rows[0][key] = value
        return in_graph("owners", rows)(content)

    return change


DAMAGED: dict[str, Change] = {
    "nothing": lambda content: {},
    "no mapping": lambda content: [content],
    "no graph": setting("graph", None),
    "no owners": in_graph("owners", None),
    "no shapes": in_graph("shapes", 3),
    "text of a shape": in_graph("shapes", {"0.weight": "wide"}),
    "no work": in_graph("work", []),
    "floors": in_graph("floors", [["0.weight", 0]]),
    "norms": in_graph("norms", {"4": [1, 2]}),
    "classes that are a list": in_row("classes", [0, 1]),
    "dimension": in_row("dim", None),
    "budget": setting("budget", [1, 2]),
    "text of a budget": setting("budget", ["a", "b", "c"]),
    "gone": setting("gone", None),
    "gone that is a list": setting("gone", [1]),
    "a number that is gone": setting("gone", torch.tensor(1)),
    "nested": setting("gone", torch.tensor([[1]])),
    "unknown class": setting("gone", torch.tensor([10_000])),
    "negative class": setting("removed", torch.tensor([-1])),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_a_damaged_ledger_is_refused(case: str, state: PruningState) -> None:
    with pytest.raises(PlanError, match="damaged"):
        PruningState.from_dict(DAMAGED[case](stored(state)))


WRONG: dict[str, Change] = {
    "fractions": setting("gone", torch.tensor([1.5])),
    "infinite budget": setting("budget", [float("inf"), 1, 1]),
    "removed that is not gone": setting("removed", torch.tensor([1])),
    "too few classes": in_row("classes", torch.tensor([0, 1], dtype=torch.int32)),
    "a dimension too many": in_row("dim", 7),
    "no such role": in_row("role", "reader"),
    "fractions of classes": in_row("classes", torch.rand(8)),
    "classes below fixed": in_row("classes", torch.full((8,), -2)),
    "more classes than channels": in_row("classes", torch.full((8,), 2**31 - 2)),
    "tensor without a shape": in_row("tensor", "elsewhere"),
    "a table of classes": in_row("classes", torch.zeros(8, 1, dtype=torch.int32)),
    "product of fractions": in_graph("products", [{"macs": 9, "channels": torch.rand(8)}]),
    "product of nothing": in_graph("products", [{"macs": 9, "channels": torch.zeros(0).int()}]),
    "product of unknown channels": in_graph(
        "products", [{"macs": 9, "channels": torch.full((8,), 2**31 - 2).int()}]
    ),
    "product of less than nothing": in_graph(
        "products", [{"macs": -1, "channels": torch.zeros(8).int()}]
    ),
    "norm of fractions": in_graph("norms", {"4": torch.rand(8)}),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_ledger_that_does_not_agree_with_itself_is_refused(
    case: str, state: PruningState
) -> None:
    """Such ones used to be read, and failed later in numpy or cut other channels."""
    with pytest.raises(PlanError, match="damaged"):
        PruningState.from_dict(WRONG[case](stored(state)))


def test_a_module_that_did_not_lose_what_is_removed_is_refused(
    net: nn.Sequential, state: PruningState
) -> None:
    selected = some(state, 0.5)
    state.check(named_tensors(net))
    state.select(selected)
    state.commit()
    with pytest.raises(PlanError, match="damaged, or of another network"):
        state.check(named_tensors(net))
    whole = PruningState(state.graph, state.budget)
    apply(whole.plan(selected), net)
    state.check(named_tensors(net))


def test_the_state_of_a_checkpoint_is_found(state: PruningState) -> None:
    assert pruning_state_of({}) is None
    assert pruning_state_of({"callbacks": {"other": {}, "more": None}}) is None
    found = pruning_state_of({"callbacks": {"other": 1, "pruning": {"ledger": state.to_dict()}}})
    assert found is not None
    assert found.budget == state.budget


def test_removed_channels_stay_selected(state: PruningState) -> None:
    state.select(some(state, 0.5))
    assert state.pending == state.selected
    state.commit()
    assert state.removed == state.selected
    assert not state.pending
    with pytest.raises(PlanError, match="must stay selected"):
        state.select(some(state, 0.25))


def test_unknown_channels_cannot_be_selected(state: PruningState) -> None:
    with pytest.raises(PlanError, match="does not have"):
        state.select(frozenset({state.graph.channel_count + 1}))
    assert state.selected == frozenset()
