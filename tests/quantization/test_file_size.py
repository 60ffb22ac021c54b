"""What a file takes for each parameter: little besides the weights."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest
import torch
from torchvision.models import get_model

from lit_compress.export.onnx import write_onnx
from lit_compress.pruning import apply
from lit_compress.pruning.selection.uniform import UniformSelector
from lit_compress.quantization import quantize


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "removed", "most"),
    [
        ("shufflenet_v2_x1_0", Fraction(963, 1000), 1.9),  # 47,000 parameters; was 2.6
        ("mobilenet_v2", Fraction(1, 2), 1.15),  # 1.1 million
        ("resnet18", Fraction(0), 1.15),
    ],
)
def test_bytes_of_a_file_for_each_parameter(
    tmp_path: Path, name: str, removed: Fraction, most: float
) -> None:
    torch.manual_seed(0)
    net, images = get_model(name, num_classes=10).eval(), torch.randn(4, 3, 32, 32)
    if removed:
        selector = UniformSelector(removed, of="parameters", scope="global")
        state = selector.analyse(net, images[:1])
        apply(state.plan(selector.select(net, state).selected), net)
    write_onnx(quantize(net, [images], images), images, tmp_path / "model.onnx")
    parameters = sum(p.numel() for p in net.parameters())
    assert (tmp_path / "model.onnx").stat().st_size <= most * parameters
