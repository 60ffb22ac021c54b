"""The residual blocks of a network as data: what each saves, and why others cannot go."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from lit_compress.errors import PlanError

#: What a share can be of.
OfBlocks = Literal["blocks", "parameters", "macs", "nodes"]


@dataclass(frozen=True)
class Block:
    """A branch that is added to its own input, and can be removed.

    Attributes:
        name: Name of the module that goes; of a branch in a module that has several, the name of
            the last module of the branch.
        kinds: By name of a module, what stands in its place afterwards, see
            :class:`~lit_compress.pruning.blocks.stand_in.StandIn`.
        parameters: Number of parameters that go.
        macs: Multiply-accumulates of one example that go.
        nodes: Number of torch calls that go, without those that leave no node in a file.
        cuts: By number of a sum in the run, the position of the summand that is the branch.
    """

    name: str
    kinds: Mapping[str, str]
    parameters: int = 0
    macs: int = 0
    nodes: int = 0
    cuts: Mapping[int, int] = field(default_factory=dict, compare=False, repr=False)

    def saves(self, of: OfBlocks) -> int:
        """Return how much of something goes with the block."""
        counts = {"parameters": self.parameters, "macs": self.macs, "nodes": self.nodes}
        return counts.get(of, 1)

    def is_within(self, other: Block) -> bool:
        """Tell whether all of the block is in modules that go with another one."""
        return self is not other and all(
            any(name.startswith(f"{outer}.") for outer in other.kinds) for name in self.kinds
        )


@dataclass(frozen=True)
class BlockGraph:
    """The residual blocks of a network.

    Attributes:
        blocks: Those that can be removed, by name.
        kept: By name of a module that adds or joins branches, why it cannot be removed.
        parameters: Number of parameters of the network.
        macs: Its multiply-accumulates of one example.
        nodes: Number of its torch calls, as in :class:`Block`.
    """

    blocks: Mapping[str, Block]
    kept: Mapping[str, str] = field(default_factory=dict)
    parameters: int = 0
    macs: int = 0
    nodes: int = 0

    def total(self, of: OfBlocks) -> int:
        """Return the number of removable blocks, or a cost of the whole network."""
        counts = {"parameters": self.parameters, "macs": self.macs, "nodes": self.nodes}
        return counts.get(of, len(self.blocks))

    def saved(self, names: Collection[str], of: OfBlocks) -> int:
        """Return how much goes with some blocks; what goes with two of them counts once."""
        chosen = self.with_inner(names)
        if of == "blocks":
            return len(chosen)
        blocks = [self.blocks[name] for name in chosen]
        outer = [b for b in blocks if not any(b.is_within(other) for other in blocks)]
        return sum(block.saves(of) for block in outer)

    def with_inner(self, names: Collection[str]) -> set[str]:
        """Return some blocks, and those that are within them."""
        chosen = [self.blocks[name] for name in names]
        inner = (n for n, b in self.blocks.items() if any(b.is_within(other) for other in chosen))
        return {*names, *inner}

    def to_dict(self) -> dict[str, Any]:
        """Return the blocks as lists, numbers and text, without ``kept`` and ``cuts``."""
        rows = [
            [b.name, dict(b.kinds), b.parameters, b.macs, b.nodes] for b in self.blocks.values()
        ]
        return {"blocks": rows, "total": [self.parameters, self.macs, self.nodes]}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> BlockGraph:
        """Return the blocks that :meth:`to_dict` stored.

        Raises:
            PlanError: If the content is damaged.
        """
        try:
            blocks = [_block(*row) for row in content["blocks"]]
            parameters, macs, nodes = map(_count, content["total"])
        except Exception as error:  # of whatever kind: the content may be anything
            raise PlanError(
                f"the blocks in the checkpoint are damaged ({type(error).__name__}: {error}): load "
                "another checkpoint"
            ) from error
        return cls({b.name: b for b in blocks}, {}, parameters, macs, nodes)


def _block(name: Any, kinds: Any, parameters: Any, macs: Any, nodes: Any) -> Block:
    known = {str(module): str(kind) for module, kind in kinds.items()}
    return Block(str(name), known, _count(parameters), _count(macs), _count(nodes))


def _count(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"{value!r} is not a count")
    return value
