from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from lit_compress.formats import exporter
from lit_compress.quantization.convert import quantize


@pytest.mark.filterwarnings("ignore")  # of ExecuTorch, about its own code
def test_operations_outside_of_xnnpack_are_told(tmp_path: Path) -> None:
    pytest.importorskip("executorch")
    network = nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8), nn.Linear(8, 3)).eval()
    values = torch.rand(16, 8)
    graph = quantize(network, [values], values[:2])
    written = exporter("executorch").write(graph, [values[:1]], tmp_path / "m", tmp_path)
    assert written.files == ("m.pte",)
    assert any("outside of XNNPACK: 1 native_layer_norm" in note for note in written.notes)
