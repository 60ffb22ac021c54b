"""Networks in other precisions become int8 files that take and return their own type."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from lit_compress.artifact import OnnxModel, sqnr_db
from lit_compress.export.onnx import write_onnx
from lit_compress.quantization import quantize
from lit_compress.quantization.single_precision import in_single_precision


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_a_network_of_another_precision_is_converted(dtype: torch.dtype, tmp_path: Path) -> None:
    """A Trainer with precision 64-true failed at the conversion, after the training."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4)).to(dtype)
    x = torch.randn(32, 8).to(dtype)
    write_onnx(quantize(network, [x], x), x, tmp_path / "model.onnx")
    found = OnnxModel(tmp_path / "model.onnx")(x.numpy())
    with torch.no_grad():
        expected = network(x).numpy()
    assert found.dtype == expected.dtype
    assert sqnr_db(expected, found) > 35
    assert network[0].weight.dtype == dtype


def test_a_network_in_float32_is_not_wrapped() -> None:
    network = nn.Linear(2, 2)
    assert in_single_precision(network) is network
