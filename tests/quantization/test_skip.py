import re
from pathlib import Path

import onnx
import pytest
import torch
from torch import Tensor, nn

from lit_compress.errors import PatternError
from lit_compress.export.onnx import write_onnx
from lit_compress.quantization import quantize, select_layers

LAYERS = ("input", "stem.0", "block/add", "block.conv", "head")
WEIGHTED = ("stem.0", "block.conv", "head")


@pytest.mark.parametrize(
    ("patterns", "chosen"),
    [
        ([], set()),
        (["first"], {"stem.0"}),
        (["last", "net.block*"], {"head", "block/add", "block.conv"}),
        (["net.*"], set(LAYERS)),
    ],
)
def test_names(patterns: list[str], chosen: set[str]) -> None:
    assert select_layers(patterns, LAYERS, WEIGHTED, "net.") == chosen


def test_a_pattern_that_matches_nothing_names_what_there_is() -> None:
    with pytest.raises(
        PatternError, match=r"skip: 'blok' matches no layer .*block\.conv.*5 in all"
    ):
        select_layers(["blok"], LAYERS, WEIGHTED)


def executed(path: Path, folder: Path) -> list[str]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return [node.op_type for node in onnx.load(folder / "optimized.onnx").graph.node]


RECTIFIERS = (nn.ReLU, nn.ReLU6, nn.Identity, nn.Hardswish)


class Beside(nn.Module):
    """Networks that differ in their activation, and read the same images."""

    def __init__(self) -> None:
        super().__init__()
        self.networks = nn.ModuleList([
            nn.Sequential(
                nn.Conv2d(3, 8, 3), rectifier(), nn.Identity(),
                nn.Conv2d(8, 8, 3), rectifier(), nn.Flatten(), nn.Linear(128, 8), rectifier(),
                nn.Linear(8, 4),
            )
            for rectifier in RECTIFIERS
        ])  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([network(x) for network in self.networks])


@pytest.mark.parametrize(("layer", "size"), [pytest.param(3, 576, marks=pytest.mark.slow), (8, 32)])
def test_skipped_layers_run_in_float(layer: int, size: int, tmp_path: Path) -> None:
    """ONNX Runtime quantises a float weight between quantised neighbours when it loads a file."""
    torch.manual_seed(0)
    net, images = Beside().eval(), torch.randn(32, 3, 8, 8)
    skip = [f"networks.?.{layer}"]
    write_onnx(quantize(net, [images], images, skip=skip), images, tmp_path / "m.onnx")
    stored = onnx.load(tmp_path / "m.onnx").graph.initializer
    arrays = [onnx.numpy_helper.to_array(item) for item in stored]
    floats = [a.size for a in arrays if a.dtype == "float32" and a.ndim > 1]
    assert floats == [size] * len(RECTIFIERS)
    ran = executed(tmp_path / "m.onnx", tmp_path)
    integer = {"QLinearConv", "QGemm"}
    assert sum(name in integer for name in ran) == 3 * len(RECTIFIERS)
    plain = sum(bool(re.fullmatch("(Fused)?(Conv|Gemm)", name)) for name in ran)
    assert plain == len(RECTIFIERS)
    assert "LeakyRelu" not in ran
