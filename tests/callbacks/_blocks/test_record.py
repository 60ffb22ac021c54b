from __future__ import annotations

from pruning.blocks.nets import Basic, images

from lit_compress.callbacks import BlockPruning
from lit_compress.pruning.blocks.block import Block, BlockGraph


def test_a_record_comes_back_and_says_what_stands_where() -> None:
    graph = BlockGraph({"2": Block("2", {"2": "identity"}, 10, 20, 3)}, {}, 100, 200, 30)
    one, other = BlockPruning(0.5), BlockPruning(0.5)
    assert one.unpruned_shapes() is None
    one.begin_with(images(Basic(4)), graph)  # type: ignore[arg-type]
    one._removed, one._kinds = ["2"], {"2": "identity"}
    other.load_state_dict(one.state_dict())
    assert other.removed == ("2",)
    assert other.unpruned_shapes() == one.unpruned_shapes()
    assert other.unpruned_shapes().blocks == {"2": "identity"}
    assert other.state_dict() == one.state_dict()
