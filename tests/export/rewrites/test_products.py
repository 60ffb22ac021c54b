"""Products with a bias become linear layers, and int8 in the file."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch
from torch import Tensor, nn

from lit_compress.artifact import OnnxModel, sqnr_db
from lit_compress.export.onnx import capture, write_onnx
from lit_compress.quantization import quantize


class Product(nn.Module):
    """GPT-2's layer: a weight of shape (in, out)."""

    def __init__(self, inputs: int, outputs: int, beta: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(inputs, outputs) / inputs**0.5)
        self.bias, self.beta = nn.Parameter(torch.randn(outputs)), beta

    def forward(self, x: Tensor) -> Tensor:
        flat = torch.addmm(self.bias, x.view(-1, x.shape[-1]), self.weight, beta=self.beta)
        return flat.view(*x.shape[:-1], -1)


def test_products_are_int8_layers_of_their_own_name(tmp_path: Path) -> None:
    """They stayed float, 71 % of the weights."""
    torch.manual_seed(0)
    net = nn.Sequential(Product(16, 32), nn.GELU(), Product(32, 8)).eval()
    x = torch.randn(64, 5, 16)
    program = capture(net, x)
    targets = [str(node.target) for node in program.graph_module.graph.nodes]
    assert targets.count("aten.linear.default") == 2
    torch.testing.assert_close(program.module()(x), net(x))
    graph = quantize(net, [x], x, skip=["2"])
    write_onnx(graph, x, tmp_path / "some.onnx")
    write_onnx(quantize(net, [x], x), x, tmp_path / "m.onnx")
    with torch.no_grad():
        assert sqnr_db(net(x).numpy(), OnnxModel(tmp_path / "m.onnx")(x)) > 30

    def int8(name: str) -> int:
        tensors = onnx.load(tmp_path / name).graph.initializer
        return sum(t.data_type == onnx.TensorProto.INT8 and len(t.dims) == 2 for t in tensors)

    assert (int8("m.onnx"), int8("some.onnx")) == (2, 1)


@pytest.mark.parametrize("beta", [0.5])
def test_a_product_with_a_factor_stays(beta: float) -> None:
    net, x = Product(4, 3, beta).eval(), torch.randn(2, 4)
    program = capture(net, x)
    assert "aten.addmm.default" in [str(node.target) for node in program.graph_module.graph.nodes]
    torch.testing.assert_close(program.module()(x), net(x))
