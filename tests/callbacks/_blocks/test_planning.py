from __future__ import annotations

import torch
from pruning.blocks.nets import Basic, X, images

from lit_compress.callbacks._blocks.planning import kinds_of, without_blocks
from lit_compress.pruning.blocks.analysis import find_blocks
from lit_compress.pruning.blocks.surgery import removed_kinds


def test_a_copy_and_its_optimizers_lose_blocks() -> None:
    net = images(Basic(4), Basic(4))
    graph = find_blocks(net, X)
    kinds = kinds_of(graph, ["2", "3"])
    assert kinds == {"2": "identity", "3": "identity"}
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    without_blocks(kinds)(net, [optimizer])  # type: ignore[arg-type]
    assert removed_kinds(net) == kinds
    assert len(optimizer.param_groups[0]["params"]) == len(list(net.parameters()))
