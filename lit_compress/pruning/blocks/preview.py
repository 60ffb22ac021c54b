"""The residual blocks of a network as a table that is printed before anything is changed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from lit_compress.pruning.blocks.block import BlockGraph, OfBlocks

#: Most rows of modules that stay.
MOST = 12
#: What a share of is shown, and its name.
COSTS: tuple[tuple[OfBlocks, str], ...] = (
    ("parameters", "parameters"),
    ("macs", "MACs"),
    ("nodes", "nodes"),
)


@dataclass(frozen=True)
class BlockPreview:
    """The blocks that may be removed, and why others cannot be; print it as a table.

    Attributes:
        graph: The blocks.

    Example:
        >>> from lit_compress.pruning.blocks.block import Block
        >>> blocks = {"net.1": Block("net.1", {"net.1": "relu"}, 740, 4000, 3)}
        >>> print(BlockPreview(BlockGraph(blocks, {"net.2": "is excluded"}, 1000, 8000, 9)))
        block  parameters         MACs  nodes  cannot be removed
        net.1         740        4,000      3
        net.2                                  is excluded
        1 block can go: 74.0% of 1,000 parameters, 50.0% of 8,000 MACs, 33.3% of 9 nodes
    """

    graph: BlockGraph

    def __str__(self) -> str:
        return "\n".join(row.rstrip() for row in self._rows())

    def _rows(self) -> Iterator[str]:
        graph = self.graph
        width = max(5, *(len(name) for name in (*graph.blocks, *graph.kept)), 0)
        yield f"{'block':{width}}  parameters         MACs  nodes  cannot be removed"
        for name, block in graph.blocks.items():
            yield f"{name:{width}}  {block.parameters:10,d} {block.macs:12,d} {block.nodes:6,d}"
        kept = list(graph.kept.items())
        for name, why in kept[:MOST]:
            yield f"{name or '(network)':{width}}{'':34}{why}"
        if len(kept) > MOST:
            yield f"and {len(kept) - MOST} more that cannot be removed"
        names = list(graph.blocks)
        shares = [
            f"{graph.saved(names, of) / max(1, graph.total(of)):.1%} of {graph.total(of):,} {word}"
            for of, word in COSTS
        ]
        yield f"{len(names)} block{'s' * (len(names) != 1)} can go: {', '.join(shares)}"
