from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

from lit_compress.errors import PlanError
from lit_compress.pruning.blocks.stand_in import StandIn

X = torch.tensor([[-2.0, 3.0, 9.0]])


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("identity", [[-2.0, 3.0, 9.0]]),
        ("relu", [[0.0, 3.0, 9.0]]),
        ("relu6", [[0.0, 3.0, 6.0]]),
        ("zeros", [[0.0, 0.0, 0.0]]),
    ],
)
def test_each_kind_computes_what_it_says(kind: str, expected: list[list[float]]) -> None:
    assert StandIn(kind)(X).tolist() == expected
    assert StandIn(kind)(None, key=X).tolist() == expected


def test_a_zero_adds_nothing_and_a_tuple_has_none_behind_it() -> None:
    assert torch.equal(X + StandIn("zero")(X), X)
    first, second = StandIn("identity:2")(X)
    assert first is X
    assert second is None


@pytest.mark.parametrize("kind", ["", "os.system", "relu:0", "relu:x", "identity:99", "zero:-1"])
def test_other_kinds_are_refused(kind: str) -> None:
    with pytest.raises(PlanError, match="stands in place"):
        StandIn(kind)


def test_attributes_and_hooks_stay_and_weights_are_none() -> None:
    layer, seen = nn.Conv2d(3, 3, 1).eval(), []
    handle = layer.register_forward_hook(lambda *_: seen.append(1))
    layer.index = 7
    stand_in = StandIn("identity", layer)
    assert (stand_in.index, stand_in.padding_mode, stand_in.training) == (7, "zeros", False)
    assert stand_in.weight is None
    with pytest.raises(AttributeError):
        stand_in.eps  # noqa: B018
    stand_in(X)
    handle.remove()
    stand_in(X)
    assert seen == [1]


def test_copies_have_the_removed_module_and_pickles_do_not() -> None:
    layer = nn.Linear(3, 3)
    stand_in = StandIn("relu", layer)
    twin = copy.deepcopy(stand_in)
    assert not list(twin.parameters())
    assert not stand_in.state_dict()
    assert twin.removed is not layer
    assert torch.equal(twin.removed.weight, layer.weight)
    again = pickle.loads(pickle.dumps(stand_in))  # noqa: S301
    assert again.removed is None
    assert again.kind == "relu"
    assert torch.equal(again(X), twin(X))
    assert str(again) == "StandIn(relu, in place of Linear)"
    stand_in.forget()
    assert stand_in.removed is None
