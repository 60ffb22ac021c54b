from collections import Counter
from pathlib import Path

import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from lit_compress.quantization import quantize, write_onnx


class Branches(nn.Module):
    """Everything that is placed specially: a residual sum, a split, a concatenation, an average."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU6())
        self.same = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.side = nn.Sequential(nn.Conv2d(8, 8, 1), nn.ReLU())
        self.pool = nn.MaxPool2d(2)
        self.head = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = torch.relu(x + self.same(x))
        left, right = x.chunk(2, 1)
        x = torch.cat([left, self.side(right)], 1)
        x = x.view(-1, 2, 8, 8, 8).transpose(1, 2).reshape(-1, 16, 8, 8)
        return self.head(self.pool(x).mean([2, 3]))


@pytest.fixture
def images() -> Tensor:
    return torch.randn(16, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def fused_operations(path: Path, folder: Path) -> Counter[str]:
    """Operations of the graph that ONNX Runtime really runs."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return Counter(n.op_type for n in onnx.load(folder / "optimized.onnx").graph.node)


def test_every_layer_runs_in_int8(images: Tensor, tmp_path: Path) -> None:
    net = Branches().eval()
    write_onnx(quantize(net, [images], images), images, tmp_path / "m.onnx")
    ran = fused_operations(tmp_path / "m.onnx", tmp_path)
    assert ran["QLinearConv"] == 3
    assert ran["QLinearAdd"] == 1
    assert ran["QLinearConcat"] == 1
    assert not ran["Conv"] + ran["FusedConv"] + ran["Add"] + ran["Concat"] + ran["Relu"]


def test_weights_are_symmetric_int8_by_channel(images: Tensor, tmp_path: Path) -> None:
    net = Branches().eval()
    write_onnx(quantize(net, [images], images), images, tmp_path / "m.onnx")
    graph = onnx.load(tmp_path / "m.onnx").graph
    stored = {i.name: onnx.numpy_helper.to_array(i) for i in graph.initializer}
    weights = {
        node.input[0]: node for node in graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] in stored
    }  # fmt: skip
    assert sorted(stored[name].size for name in weights) == sorted(
        layer.weight.numel() for layer in net.modules() if isinstance(layer, (nn.Conv2d, nn.Linear))
    )
    for name, node in weights.items():
        values, scales, zeros = stored[name], stored[node.input[1]], stored[node.input[2]]
        assert values.dtype == "int8"
        assert values.min() >= -127
        axis = next((a.i for a in node.attribute if a.name == "axis"), 1)
        assert scales.shape == (values.shape[axis],)
        assert len(set(scales.tolist())) > 1
        assert not zeros.any()


def test_relu6_stays_relu6(images: Tensor) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU6(), nn.Conv2d(4, 4, 1)).eval()
    with torch.no_grad():
        net[0].weight.mul_(40)
        graph = quantize(net, [images], images)
        error = (graph(images) - net(images)).pow(2).mean() / net(images).pow(2).mean()
    assert error < 1e-3
