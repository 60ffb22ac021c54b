from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from lit_compress.export.onnx import write_onnx
from lit_compress.formats import exporter


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # JAX, of forks
def test_the_weights_stay_in_single_precision(tmp_path: Path) -> None:
    """OpenVINO stores them in half precision unless it is told not to."""
    pytest.importorskip("openvino")
    layer, values = nn.Linear(64, 64).eval(), torch.rand(2, 64)
    write_onnx(layer, values, tmp_path / "m.onnx")
    written = exporter("openvino").write(layer, [values], tmp_path / "m", tmp_path / "m.onnx")
    assert written.files == ("m.xml", "m.bin")
    assert (tmp_path / "m.bin").stat().st_size >= 4 * 64 * 64
