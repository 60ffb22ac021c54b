"""Blocks that others need stay, and the reason is said."""

from __future__ import annotations

import re

import pytest
import torch
from torch import Tensor, nn

from lit_compress.pruning.blocks.analysis import find_blocks
from pruning.blocks.nets import Basic, X, images


class Wrapped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.block = nn.Conv2d(1, 4, 1), Basic(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.block(self.stem(x)).mean((2, 3))


class Twice(Wrapped):
    def forward(self, x: Tensor) -> Tensor:
        return self.block(self.block(self.stem(x)))


class PartOutside(Wrapped):
    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.block(x) * self.block.last(x)


class ReadOutside(Wrapped):
    def forward(self, x: Tensor) -> Tensor:
        return self.block(self.stem(x)) * self.block.bn.running_mean.sum()


class Aliased(Wrapped):
    def __init__(self) -> None:
        super().__init__()
        self.other = self.block.last

    def forward(self, x: Tensor) -> Tensor:
        return self.block(self.stem(x))


class Tied(Wrapped):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Conv2d(4, 4, 1)
        self.head.weight = self.block.last.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.block(self.stem(x)))


class Looking(Basic):
    def forward(self, x: Tensor) -> Tensor:
        self.seen = self.a(x)
        return x + self.last(self.seen)


class InnerUsed(Wrapped):
    def __init__(self) -> None:
        super().__init__()
        self.block = Looking(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.block(self.stem(x)) + self.block.seen.mean()


class InnerReturned(InnerUsed):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        return self.block(self.stem(x)), self.block.seen


class TwoOutputs(Basic):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        branch = self.last(x)
        return x + branch, branch.mean()


class ReturnsTwo(Wrapped):
    def __init__(self) -> None:
        super().__init__()
        self.block = TwoOutputs(4)

    def forward(self, x: Tensor) -> Tensor:
        out, mean = self.block(self.stem(x))
        return out * mean


class Asking(Wrapped):
    """Its forward asks a block for what no module without weights has."""

    def forward(self, x: Tensor) -> Tensor:
        return self.block(self.stem(x)) * self.block.a.out_channels


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        (Twice, "is called 2 times"),
        (PartOutside, "has a part that is called outside of it"),
        (ReadOutside, "has block.bn.running_mean, which is read outside of it"),
        (Aliased, "is other too|shares weights with other"),
        (Tied, "shares weights with head"),
        (InnerUsed, "computes a tensor that is used outside of it"),
        (InnerReturned, "computes a tensor that the network returns"),
        (ReturnsTwo, "returns more than one tensor"),
        (Asking, "the forward fails without it .AttributeError"),
    ],
)
def test_a_block_that_others_need_stays(kind: type[Wrapped], why: str) -> None:
    torch.manual_seed(0)
    graph = find_blocks(kind().eval(), X)
    assert not graph.blocks
    assert any(re.search(why, reason) for reason in graph.kept.values()), graph.kept


def test_a_block_that_nothing_else_needs_goes() -> None:
    assert list(find_blocks(Wrapped().eval(), X).blocks) == ["block"]


def test_a_shared_block_stays_and_the_others_go() -> None:
    shared = Basic(4)
    net = images(shared, Basic(4), shared)
    graph = find_blocks(net, X)
    assert list(graph.blocks) == ["3"]
    assert graph.kept["2"].startswith("is called 2 times")
