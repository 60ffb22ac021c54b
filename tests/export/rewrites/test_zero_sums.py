from __future__ import annotations

import pytest
import torch
from pruning.blocks.nets import T, tokens, zeroed
from torch import Tensor, nn

from lit_compress.export.onnx import capture
from lit_compress.export.rewrites.zero_sums import drop_zero_sums
from lit_compress.pruning.blocks.surgery import remove_blocks


def adds(program: torch.export.ExportedProgram) -> int:
    return sum("aten.add." in str(node.target) for node in program.graph_module.graph.nodes)


@pytest.mark.parametrize("zero", ["zero", "zeros"])
def test_a_removed_branch_leaves_no_sum(zero: str) -> None:
    net = tokens(1)
    before = adds(capture(net, T))
    expected = zeroed(net, ["1.mlp.2"])(T)
    remove_blocks(net, {"1.norm2": "identity", "1.mlp": zero})
    program = capture(net, T)
    assert adds(program) == before - 1
    assert "zeros" not in str(program.graph_module.graph)
    torch.testing.assert_close(program.module()(T), expected)


class Sums(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "wider":
            return (x[:1] + torch.zeros_like(x)) * 2
        if self.kind == "ones":
            return (x + torch.full_like(x, 1.0)) * 2
        if self.kind == "factor":
            return torch.add(x, torch.zeros_like(x), alpha=2) * 2
        if self.kind == "output":
            return x + torch.zeros_like(x)
        return (torch.full_like(x, 0.0) * x.mean() + x) * 2  # "zero"


@pytest.mark.parametrize(
    ("kind", "count"), [("wider", 0), ("ones", 0), ("factor", 0), ("output", 0), ("zero", 1)]
)
def test_only_sums_that_change_nothing_go(kind: str, count: int) -> None:
    x = torch.randn(3, 4)
    program = torch.export.export(Sums(kind), (x,))
    assert drop_zero_sums(program) == count
    assert torch.equal(program.module()(x), Sums(kind)(x))
