from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lit_compress.artifact import OnnxModel
from lit_compress.export.onnx import write_onnx


class Clamp(nn.Module):
    def __init__(self, low: float | None, high: float | None) -> None:
        super().__init__()
        self.low, self.high = low, high

    def forward(self, x: Tensor) -> Tensor:
        return (x * 4).clamp(self.low, self.high)


@pytest.mark.parametrize("bounds", [(0, 6.0), (-0.5, 3), (None, 2)])
def test_bounds_of_any_types_are_written(
    bounds: tuple[float | None, float | None], tmp_path: Path
) -> None:
    """``clamp(0, 6.0)``, one bound an int and the other a float, could not be exported."""
    x = torch.linspace(-3, 3, 14).view(2, 7)
    write_onnx(Clamp(*bounds).eval(), x, tmp_path / "m.onnx")
    expected = (x * 4).clamp(*bounds).numpy()
    assert np.array_equal(OnnxModel(tmp_path / "m.onnx")(x), expected)
