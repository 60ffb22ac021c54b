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


@pytest.mark.parametrize("rectifier", [nn.ReLU, nn.ReLU6, nn.Identity, nn.Hardswish])
@pytest.mark.parametrize("skip", ["first", "last", "3"])
def test_skipped_layers_run_in_float(rectifier: type[nn.Module], skip: str, tmp_path: Path) -> None:
    """ONNX Runtime quantises a float weight between quantised neighbours when it loads a file."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3), rectifier(), nn.Identity(),
        nn.Conv2d(8, 8, 3), rectifier(), nn.Flatten(), nn.Linear(128, 8), rectifier(),
        nn.Linear(8, 4),
    ).eval()  # fmt: skip
    images: Tensor = torch.randn(32, 3, 8, 8)
    write_onnx(quantize(net, [images], images, skip=[skip]), images, tmp_path / "m.onnx")
    stored = {
        i.name: onnx.numpy_helper.to_array(i)
        for i in onnx.load(tmp_path / "m.onnx").graph.initializer
    }
    kept = {"first": net[0], "last": net[8], "3": net[3]}[skip]
    floats = [a for a in stored.values() if a.dtype == "float32" and a.ndim > 1]
    assert [a.size for a in floats] == [kept.weight.numel()]  # type: ignore[union-attr,operator]
    ran = executed(tmp_path / "m.onnx", tmp_path)
    integer = {"QLinearConv", "QGemm"}
    assert sum(name in integer for name in ran) == 3
    assert sum(bool(re.fullmatch("(Fused)?(Conv|Gemm)", name)) for name in ran) == 1
    assert "LeakyRelu" not in ran
