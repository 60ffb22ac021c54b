from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from lit_compress.errors import PlanError
from lit_compress.pruning.blocks.stand_in import StandIn
from lit_compress.pruning.blocks.surgery import (
    forget_removed,
    outermost,
    put_back,
    remove_blocks,
    removed_kinds,
    stand_ins,
    take_blocks_of,
    without,
)
from pruning.blocks.nets import Basic, Nested, X, images


def net() -> nn.Sequential:
    return images(Basic(4), Nested(4), Basic(4))


def test_weights_go_and_the_optimizer_keeps_the_state_of_the_others() -> None:
    module = net().train()
    groups = [
        {"params": module[2].parameters()},
        {"params": [*module[0].parameters(), *module[3:].parameters()]},
    ]
    optimizer = torch.optim.AdamW(groups, lr=0.1)
    module(X).square().sum().backward()
    optimizer.step()
    state = {id(p): copy.deepcopy(s) for p, s in optimizer.state.items()}
    kept = [p for name, p in module.named_parameters() if not name.startswith("2.")]
    remove_blocks(module, {"2": "relu"}, optimizer)
    assert [len(group["params"]) for group in optimizer.param_groups] == [0, len(kept)]
    assert all(a is b for a, b in zip(module.parameters(), kept, strict=True))
    assert set(map(id, optimizer.state)) == set(map(id, kept))
    for parameter in kept:
        for key, value in optimizer.state[parameter].items():
            assert torch.equal(value, state[id(parameter)][key])
    module(X).square().sum().backward()
    optimizer.step()


def test_names_of_parameters_in_groups_go_along() -> None:
    module = net()
    optimizer = torch.optim.SGD(module.named_parameters(), lr=0.1)
    remove_blocks(module, {"2": "identity"}, optimizer)
    names = [name for name, _ in module.named_parameters()]
    assert optimizer.param_groups[0]["param_names"] == names


def test_an_unknown_part_or_kind_changes_nothing() -> None:
    module = net()
    for kinds in ({"2": "identity", "nine": "identity"}, {"2": "identity", "": "identity"}):
        with pytest.raises(PlanError, match="no part"):
            remove_blocks(module, kinds)
    with pytest.raises(PlanError, match="stands in place"):
        remove_blocks(module, {"2": "identity", "3": "eval"})
    assert not stand_ins(module)


def test_blocks_within_others_are_passed_over() -> None:
    module = net()
    remove_blocks(module, {"3.inner": "identity"})
    remove_blocks(module, {"3.inner": "identity", "3": "identity"})
    assert removed_kinds(module) == {"3": "identity"}
    remove_blocks(module, {"3.inner": "identity", "3": "identity"})
    assert outermost({"a.b.c": "relu", "a.b": "zero", "a.bc": "relu"}) == {
        "a.b": "zero",
        "a.bc": "relu",
    }


def test_a_module_takes_the_blocks_of_weights_and_back() -> None:
    whole, small = net(), net()
    expected, state = whole(X), copy.deepcopy(whole.state_dict())
    remove_blocks(small, {"2": "identity", "3.inner": "identity"})
    kinds = removed_kinds(small)
    before = take_blocks_of(whole, small.state_dict(), kinds)
    assert removed_kinds(whole) == kinds
    assert {name for name, _ in before} == set(kinds)
    assert whole.state_dict().keys() == small.state_dict().keys()
    take_blocks_of(whole, state)  # those of before the removal
    assert not stand_ins(whole)
    assert torch.equal(whole(X), expected)
    before = take_blocks_of(whole, small.state_dict(), kinds)
    put_back(whole, before)
    assert torch.equal(whole(X), expected)


def test_a_state_with_tensors_of_a_block_keeps_it() -> None:
    module = net()
    assert take_blocks_of(module, module.state_dict(), {"2": "identity"}) == []
    assert not stand_ins(module)


def test_an_outer_block_comes_back_without_the_inner_one() -> None:
    module = net()
    remove_blocks(module, {"3.inner": "identity"})
    state = copy.deepcopy(module.state_dict())
    remove_blocks(module, {"3": "identity"})
    take_blocks_of(module, state, {"3.inner": "identity"})
    assert removed_kinds(module) == {"3.inner": "identity"}
    assert module.state_dict().keys() == state.keys()


def test_what_comes_back_has_the_type_of_the_module() -> None:
    module = net()
    state = module.state_dict()
    remove_blocks(module, {"2": "identity"})
    module.double()
    take_blocks_of(module, state)
    assert {p.dtype for p in module.parameters()} == {torch.float64}


def test_blocks_are_away_for_a_while_also_if_it_fails() -> None:
    module = net()
    expected, block = module(X), module[2]
    with pytest.raises(RuntimeError), without(module, {"2": "zero"}):  # noqa: PT012
        assert isinstance(module[2], StandIn)
        raise RuntimeError
    assert module[2] is block
    assert torch.equal(module(X), expected)


def test_what_is_kept_aside_can_be_dropped() -> None:
    module = net()
    state = module.state_dict()
    remove_blocks(module, {"2": "identity"})
    forget_removed(module)
    assert take_blocks_of(module, state) == []
    assert removed_kinds(module) == {"2": "identity"}
