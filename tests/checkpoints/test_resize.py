import copy
from typing import Any

import pytest
import torch
from conftest import ForeignModule
from torch import nn

from lit_compress.checkpoints.resize import CheckpointResizer
from lit_compress.errors import CheckpointError
from lit_compress.pruning import analyse, apply, make_plan
from lit_compress.pruning.channels.resize import UnprunedShapes, unpruned_shapes_of


def pruned() -> tuple[ForeignModule, dict]:
    module = ForeignModule()
    graph = analyse(module, torch.zeros(1, 1, 8, 8))
    selected = frozenset(graph.channels[:3])
    apply(make_plan(graph, selected), module)
    return module, {"callbacks": {"p": {"original": UnprunedShapes.of(graph, selected).to_dict()}}}


def test_module_takes_the_shapes_it_loads_until_it_is_let_go() -> None:
    module, checkpoint = pruned()
    whole, resizer = ForeignModule(), CheckpointResizer()
    resizer.attach(whole)
    whole.load_state_dict(module.state_dict())
    resizer.check_record(whole, checkpoint, {})
    assert whole.net[0].out_channels == module.net[0].out_channels < 8
    resizer.detach()
    with pytest.raises(RuntimeError, match="size mismatch"):
        whole.load_state_dict(ForeignModule().state_dict())


def test_shapes_without_a_record_are_refused_afterwards() -> None:
    module, _ = pruned()
    whole, resizer = ForeignModule(), CheckpointResizer()
    resizer.attach(whole)
    whole.load_state_dict(module.state_dict())
    with pytest.raises(CheckpointError, match="was not made with FilterPruning"):
        resizer.check_record(whole, {}, {})


def test_a_resize_is_undone_until_it_is_accepted() -> None:
    """A refused checkpoint used to leave its shapes and weights behind."""
    module, checkpoint = pruned()
    whole, resizer = ForeignModule(), CheckpointResizer()
    before = copy.deepcopy(whole.state_dict())
    resizer.attach(whole)
    whole.load_state_dict(module.state_dict())
    resizer.check_record(whole, checkpoint, {})
    resizer.undo(whole)
    assert all(torch.equal(before[name], tensor) for name, tensor in whole.state_dict().items())
    assert whole.net[0].out_channels == whole.net[1].num_features == 8
    resizer.attach(whole)
    whole.load_state_dict(module.state_dict())
    resizer.accept()
    resizer.undo(whole)
    assert whole.net[0].out_channels == module.net[0].out_channels < 8


def test_weights_of_parts_that_are_not_here_are_named() -> None:
    whole, resizer = ForeignModule(), CheckpointResizer()
    resizer.attach(whole)
    state = whole.state_dict() | {"more.weight": torch.zeros(1)}
    with pytest.raises(CheckpointError, match=r"a part that is not here: more\.weight"):
        whole.load_state_dict(state)


def test_parts_may_rename_what_they_load() -> None:
    """Names were compared before the hook of a part had its turn."""
    module, resizer = ForeignModule(), CheckpointResizer()
    state = ForeignModule().state_dict()
    weight = state.pop("net.7.weight")
    state["net.7.old"] = weight

    def rename(_: nn.Module, given: dict[str, Any], prefix: str, *__: Any) -> None:
        given[f"{prefix}weight"] = given.pop(f"{prefix}old")

    module.net[7].register_load_state_dict_pre_hook(rename)
    resizer.attach(module)
    module.load_state_dict(state)
    assert torch.equal(module.net[7].weight, weight)


def test_missing_weights_are_named_before_anything_changes() -> None:
    whole, resizer = ForeignModule(), CheckpointResizer()
    resizer.attach(whole)
    before = whole.net[0].weight
    with pytest.raises(CheckpointError, match=r"holds no weights of net\.0\.weight"):
        whole.load_state_dict({"other": torch.zeros(1)})
    assert whole.net[0].weight is before


def test_weights_alone_are_fitted_to_what_the_run_pruned_itself() -> None:
    """Without a record, a module took on the widths of any other."""
    module, checkpoint = pruned()
    whole, resizer = ForeignModule(), CheckpointResizer()
    known = {name: tuple(shape) for name, shape in unpruned_shapes_of(checkpoint).shapes.items()}
    resizer.attach(whole)
    whole.load_state_dict(module.state_dict())
    resizer.check_without_record(whole, known)
    resizer.check_without_record(whole, {})
    whole.load_state_dict(ForeignModule().state_dict())
    with pytest.raises(CheckpointError, match="without a record of what was pruned"):
        resizer.check_without_record(whole, {})
