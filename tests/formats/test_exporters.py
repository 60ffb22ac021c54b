from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from lit_compress.artifact import OnnxModel, sqnr_db
from lit_compress.errors import InvalidArgumentError
from lit_compress.export.onnx import write_onnx
from lit_compress.formats import check_installed, exporter, exporters
from lit_compress.quantization.convert import quantize
from lit_compress.runtimes import FORMATS, Format, FormatFile, Port
from lit_compress.runtimes.open_format import open_format


def test_a_format_that_is_none() -> None:
    with pytest.raises(InvalidArgumentError, match=r"formats may have onnx, .*, got 'tflite'"):
        check_installed(["onnx", "tflite"])


@pytest.mark.parametrize("name", [name for name in FORMATS if name != "onnx"])
def test_a_package_that_is_missing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporters, "find_spec", lambda package: None)
    with pytest.raises(InvalidArgumentError, match=rf"pip install 'lit-compress\[{name}\]'"):
        check_installed(["onnx", name])


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU6(),
        nn.Conv2d(8, 16, 3, stride=2),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 4),
    ).eval()


@pytest.mark.filterwarnings("ignore")  # of the packages, about their own code
@pytest.mark.parametrize("name", [name for name in FORMATS if name != "onnx"])
def test_a_file_gives_the_outputs_of_the_onnx_file(name: Format, tmp_path: Path) -> None:
    """The scales and zero points are the same; runtimes round otherwise in few places."""
    for package in exporter(name).packages:
        pytest.importorskip(package)
    images = torch.rand(32, 3, 8, 8)
    graph = quantize(network(), [images], images[:2])
    write_onnx(graph, images[:2], tmp_path / "model.onnx")
    written = exporter(name).write(
        graph, [images[:4]], tmp_path / "model-b4", tmp_path / "model.onnx"
    )
    file = FormatFile(
        name,
        written.files,
        1,
        (Port("input", (3, 8, 8), "float32", True),),
        (Port("output", (4,), "float32", True),),
        batch=4 if exporter(name).one_batch else None,
    )
    parts = tuple((tmp_path / part).read_bytes() for part in written.files)
    engine = open_format(tmp_path, name, [(file, parts)], 1)  # type: ignore[arg-type]
    found = engine.run([images.numpy()])[0]
    expected = OnnxModel(tmp_path / "model.onnx")(images.numpy())
    assert sqnr_db(expected, found) > 40
    np.testing.assert_array_equal(found.argmax(1), expected.argmax(1))
