import logging
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from lit_compress.artifact import OnnxModel
from lit_compress.errors import ExportError
from lit_compress.export.onnx import capture, write_onnx

IMAGES = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5)).eval()


def test_the_file_computes_the_same_for_any_batch(tmp_path: Path) -> None:
    net = network()
    write_onnx(net, IMAGES, tmp_path / "m.onnx", {"note": "a\nb"})
    model = OnnxModel(tmp_path / "m.onnx")
    with torch.no_grad():
        for batch in (IMAGES[:1], IMAGES, IMAGES.repeat(3, 1, 1, 1)):
            np.testing.assert_allclose(model(batch), net(batch), atol=1e-5)


def test_the_file_is_lean_and_names_its_batch_axis(tmp_path: Path) -> None:
    write_onnx(network(), IMAGES, tmp_path / "m.onnx", {"note": "kept"})
    model = onnx.load(tmp_path / "m.onnx")
    onnx.checker.check_model(model)
    assert {p.key: p.value for p in model.metadata_props} == {"note": "kept"}
    assert not model.graph.value_info
    assert not any(node.metadata_props or node.doc_string for node in model.graph.node)
    for value in (*model.graph.input, *model.graph.output):
        assert value.type.tensor_type.shape.dim[0].dim_param == "batch"


def test_without_a_path_nothing_is_written(tmp_path: Path) -> None:
    write_onnx(network(), IMAGES[:1], None)
    assert not list(tmp_path.iterdir())


def test_an_operation_without_an_onnx_form_is_named() -> None:
    class Spectrum(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.linalg.svdvals(x.flatten(2))

    with pytest.raises(ExportError, match=r"operation aten\._linalg_svd has no ONNX form"):
        write_onnx(Spectrum(), IMAGES, None)


class Two(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, x: Tensor) -> Any:
        a, b = x + 1, x - 1
        return {"tuple": (a, b), "dict": {"a": a, "b": b}, "number": 3, "mixed": (a, 3)}[self.kind]


def test_several_outputs_have_names_in_their_order(tmp_path: Path) -> None:
    """A network with several outputs was refused."""
    write_onnx(Two("tuple"), IMAGES, tmp_path / "m.onnx", outputs=("z", "a"))
    found = OnnxModel(tmp_path / "m.onnx")(IMAGES.numpy())
    assert list(found) == ["z", "a"]
    np.testing.assert_array_equal(found["z"], IMAGES.numpy() + 1)
    np.testing.assert_array_equal(found["a"], IMAGES.numpy() - 1)


@pytest.mark.parametrize(
    ("kind", "what"), [("number", "a constant"), ("dict", "a dict"), ("mixed", "a tuple")]
)
def test_what_is_no_tuple_of_tensors_is_refused(kind: str, what: str) -> None:
    with pytest.raises(ExportError, match=f"forward of Two must return tensors.*returns {what}"):
        capture(Two(kind), IMAGES)


def test_nothing_is_printed_when_an_export_fails(capfd: pytest.CaptureFixture[str]) -> None:
    """The tracer used to print the whole graph before the error."""

    class Gate(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if x.sum() > 0 else -x

    with pytest.raises(ExportError, match="cannot be exported"):
        capture(Gate(), IMAGES)
    assert "def forward" not in "".join(capfd.readouterr())


def test_a_forward_that_fixes_the_batch_is_told_how_not_to() -> None:
    class Fixed(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.view(len(x), 3, 64)

    with pytest.raises(ExportError, match=r"fixes the batch size .*x.shape\[0\]"):
        capture(Fixed(), IMAGES)


def test_the_levels_of_the_exporters_loggers_are_put_back() -> None:
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    tracer = logging.getLogger("torch.fx.experimental.symbolic_shapes")
    before = [logger.level for logger in (*loggers, tracer)]
    loggers[0].setLevel(logging.DEBUG)
    try:
        write_onnx(network(), IMAGES, None)
        after = [logger.level for logger in (*loggers, tracer)]
        assert after == [logging.DEBUG, *before[1:]]
    finally:
        loggers[0].setLevel(before[0])


def test_an_output_that_depends_on_no_input_is_refused_by_name() -> None:
    """Anchors: the file could not be loaded, and a temporary path was in the message."""

    class Anchored(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.anchors = nn.Parameter(torch.ones(3))

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return x + 1, self.anchors * 2

    with pytest.raises(ExportError, match="output 1 of Anchored depends on no input"):
        capture(Anchored(), IMAGES)
