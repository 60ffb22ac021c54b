"""The record of a pruned module: merged, carried along, and dropped."""

from __future__ import annotations

import copy

import torch
from lightning.pytorch import LightningModule
from torch import nn

from lit_compress.pruning.channels.unpruned import (
    RECORD,
    UnprunedShapes,
    carried,
    carry,
    drop_carried,
    is_smaller,
)


def shapes(**given: tuple[int, ...]) -> UnprunedShapes:
    return UnprunedShapes({name.replace("_", "."): shape for name, shape in given.items()})


def test_the_first_of_two_prunings_knows_the_shapes_and_the_last_the_widths() -> None:
    first = UnprunedShapes({"a": (8, 3)}, {"norm": 6})
    second = UnprunedShapes({"a": (6, 3), "b": (4,)}, {"norm": 5})
    assert first.before(second) == UnprunedShapes({"a": (8, 3), "b": (4,)}, {"norm": 5})


def test_records_of_two_parts_keep_the_width_of_each() -> None:
    """The second callback of a GAN knew the first network's norms as they were before."""
    generator = UnprunedShapes({"g": (8,), "d": (6,)}, {"g_norm": 4, "d_norm": 6})
    discriminator = UnprunedShapes({"g": (8,), "d": (6,)}, {"g_norm": 8, "d_norm": 3})
    for one, other in ((generator, discriminator), (discriminator, generator)):
        assert dict(one.before(other).widths) == {"g_norm": 4, "d_norm": 3}


def test_a_module_carries_its_record_into_copies_and_checkpoints() -> None:
    class Module(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 4)

    module = Module()
    assert carried(module) is None
    assert not is_smaller(module)
    record = shapes(layer_weight=(8, 3), layer_bias=(8,))
    carry(module, record)
    assert carried(copy.deepcopy(module)) == record
    assert is_smaller(module)
    checkpoint: dict[str, object] = {}
    module.on_save_checkpoint(checkpoint)
    assert checkpoint == {RECORD: {"original": record.to_dict()}}
    drop_carried(module)
    assert carried(module) is None


def test_a_record_is_of_tensors_that_can_have_been_cut() -> None:
    """A layer may have been replaced since: by a wider one, of other dimensions, or by none."""
    module = nn.Module()
    module.kept, module.wider = nn.Linear(3, 4), nn.Linear(3, 9)
    module.other = nn.Conv1d(3, 4, 1)
    record = shapes(
        kept_weight=(8, 3), wider_weight=(8, 3), other_weight=(8, 3), removed_weight=(8, 3)
    )
    carry(module, record)
    assert carried(module) == shapes(kept_weight=(8, 3))


def test_a_network_of_the_unpruned_shapes_is_not_smaller() -> None:
    module = nn.Linear(3, 4)
    carry(module, shapes(weight=(4, 3)))
    assert not is_smaller(module)
    module.weight = nn.Parameter(torch.zeros(2, 3))
    assert is_smaller(module)
