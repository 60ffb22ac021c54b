from __future__ import annotations

import pytest
from lightning.pytorch import Trainer

from lit_compress import Schedule
from lit_compress.callbacks import BlockPruning, FilterPruning
from lit_compress.callbacks._blocks.order import check_order
from lit_compress.errors import InvalidArgumentError


def check(blocks: BlockPruning, filters: FilterPruning, blocks_first: bool = True) -> None:
    order = [blocks, filters] if blocks_first else [filters, blocks]
    trainer = Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, callbacks=list(order)
    )
    for callback in order:
        vars(callback)["_resolved_schedule"] = callback.schedule
    check_order(blocks, trainer)


def test_blocks_go_before_filters() -> None:
    check(BlockPruning(0.5, schedule=Schedule(0, 2)), FilterPruning(0.5, schedule=Schedule(3, 4)))
    check(BlockPruning(0.5, schedule=Schedule(0, 2)), FilterPruning(0.5, schedule=Schedule(2, 4)))


@pytest.mark.parametrize(("first", "blocks_first"), [(1, True), (2, False)])
def test_filters_before_the_last_block_are_refused(first: int, blocks_first: bool) -> None:
    blocks = BlockPruning(0.5, schedule=Schedule(0, 2))
    filters = FilterPruning(0.5, schedule=Schedule(first, 4))
    with pytest.raises(InvalidArgumentError, match="removes the last blocks at epoch 2"):
        check(blocks, filters, blocks_first)
