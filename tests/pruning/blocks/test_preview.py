from __future__ import annotations

from lit_compress.pruning.blocks.block import Block, BlockGraph
from lit_compress.pruning.blocks.preview import MOST, BlockPreview


def test_many_modules_that_stay_are_counted() -> None:
    kept = {f"net.{number}": "changes the shape" for number in range(MOST + 3)} | {"": "joins"}
    blocks = {
        "a": Block("a", {"a": "identity"}, 10, 20, 1),
        "b": Block("b", {"b": "relu"}, 10, 20, 1),
    }
    lines = str(BlockPreview(BlockGraph(blocks, kept, 100, 100, 10))).splitlines()
    assert lines[-2] == "and 4 more that cannot be removed"
    assert (
        lines[-1]
        == "2 blocks can go: 20.0% of 100 parameters, 40.0% of 100 MACs, 20.0% of 10 nodes"
    )
    assert len(lines) == 1 + 2 + MOST + 2


def test_the_network_itself_is_named() -> None:
    shown = str(BlockPreview(BlockGraph({}, {"": "adds branches"}, 1, 1, 1)))
    assert "(network)" in shown
