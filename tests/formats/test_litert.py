from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import fx, nn

from lit_compress.formats import exporter
from lit_compress.formats.litert import _Fixed
from lit_compress.quantization.convert import quantize


def test_an_exported_graph_may_be_asked_for_eval_mode() -> None:
    """The converter asks for it, and an exported graph refuses."""
    program = torch.export.export(nn.Linear(4, 3), (torch.ones(2, 4),))
    graph = program.module()
    assert isinstance(graph, fx.GraphModule)
    fixed = _Fixed(graph).eval()
    assert torch.equal(fixed(torch.ones(2, 4)), graph(torch.ones(2, 4)))


@pytest.mark.filterwarnings("ignore")  # of the converter, about its own code
def test_weights_are_int8_in_the_file(tmp_path: Path) -> None:
    """Told of no quantizer, the converter left all weights in float: 4 bytes each."""
    pytest.importorskip("litert_torch")
    layers = [nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 3)]
    values = torch.rand(16, 256)
    graph = quantize(nn.Sequential(*layers).eval(), [values], values[:2])
    written = exporter("litert").write(graph, [values[:1]], tmp_path / "m", tmp_path)
    assert written.files == ("m.tflite",)
    assert (tmp_path / "m.tflite").stat().st_size < 2 * 256 * 256
    assert written.notes == (
        "1 layer with a float output has float weights, which are rounded to int8 values",
    )
