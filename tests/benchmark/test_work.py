"""Counted MACs against those that are counted on the PyTorch module, and by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmark.conftest import model
from lit_compress.artifact import read_card
from lit_compress.artifact.replay import read_replay
from lit_compress.benchmark.work import UncountedError, Work, count_work
from lit_compress.measure import cost

EXAMPLE = Path(__file__).parents[2] / "examples/digits_int8"


class Mixed(nn.Module):
    """Convolutions with groups and strides, a transposed one, attention and linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2, padding=1),
            nn.Conv2d(8, 16, 3, groups=4, padding=1),
            nn.ConvTranspose2d(16, 8, 2, stride=2),
        )
        self.attention = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        rows = self.convs(x).flatten(2).transpose(1, 2)
        out: Tensor = self.head(self.attention(rows).mean(1))
        return out


def test_the_macs_are_those_of_the_module(tmp_path: Path) -> None:
    net, images = Mixed().eval(), torch.randn(2, 3, 8, 8)
    file = tmp_path / "mixed.onnx"
    torch.onnx.export(net, (images,), str(file), dynamo=True, external_data=False, verbose=False)
    found = count_work(file.read_bytes(), [images.numpy()], examples=2)
    with sdpa_kernel(SDPBackend.MATH):  # the fused attention is not counted
        assert found == Work(0, cost(net, images).macs)


def test_the_macs_of_an_artefact_are_those_on_its_card() -> None:
    inputs, _ = read_replay(EXAMPLE / "replay.npz")
    found = count_work((EXAMPLE / "model.onnx").read_bytes(), inputs, len(inputs[0]))
    assert found == Work(read_card(EXAMPLE).variant("int8").macs, 0)


def test_a_recurrent_layer() -> None:
    content = model(
        "net (float[5, batch, 3] x, float[1, 16, 3] w, float[1, 16, 4] r) "
        "=> (float[5, 1, batch, 4] y) { y = LSTM <hidden_size = 4> (x, w, r) }"
    )
    shapes = ((5, 2, 3), (1, 16, 3), (1, 16, 4))
    arrays = [np.zeros(shape, np.float32) for shape in shapes]
    net = nn.LSTM(3, 4, bias=False, batch_first=True)
    assert count_work(content, arrays, 2).total == cost(net, torch.zeros(1, 5, 3)).macs


def test_whole_numbers_are_told_from_floats() -> None:
    content = model(
        "net (uint8[batch, 4] x, float[batch, 4] z) => (int32[batch, 2] y, float[batch, 3] v) "
        "<uint8[4, 2] w = {1, 2, 3, 4, 5, 6, 7, 8}, "
        "float[4, 3] m = {1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0}> "
        "{ y = MatMulInteger(x, w) v = Gemm(z, m) }"
    )
    arrays = [np.zeros((3, 4), np.uint8), np.zeros((3, 4), np.float32)]
    assert count_work(content, arrays, 3) == Work(int8=8, float32=12)


def test_quantised_weights_with_float_inputs_are_floats() -> None:
    content = model(
        "net (float[batch, 2] x) => (float[batch, 2] y) "
        "<int8[2, 2] w = {1, 2, 3, 4}, float s = {0.5}> "
        "{ d = DequantizeLinear(w, s) y = MatMul(x, d) }"
    )
    assert count_work(content, [np.zeros((1, 2), np.float32)], 1) == Work(0, 4)


@pytest.mark.parametrize(
    ("graph", "reason"),
    [
        ('{ y = Einsum <equation = "ij,jk->ik"> (x, w) }', "operator Einsum are not counted"),
        ("{ y = com.microsoft.FusedMatMul(x, w) }", "operator FusedMatMul are not counted"),
        ("{ z = Relu(q) y = MatMul(z, w) }", "does not run without optimisations"),
    ],
)
def test_what_cannot_be_counted(graph: str, reason: str) -> None:
    content = model(f"net (float[2, 2] x, float[2, 2] w) => (float[2, 2] y) {graph}")
    with pytest.raises(UncountedError, match=reason):
        count_work(content, [np.ones((2, 2), np.float32)] * 2, 2)


def test_float64_has_no_limit() -> None:
    content = model("net (double[2, 2] x) => (double[2, 2] y) { y = MatMul(x, x) }")
    with pytest.raises(UncountedError, match="float64"):
        count_work(content, [np.ones((2, 2))], 2)
