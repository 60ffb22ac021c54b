"""Averages of one value each: taken out, and nothing else is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_compress.artifact import OnnxModel
from lit_compress.export.onnx import capture, write_onnx
from lit_compress.export.rewrites.idle_means import drop_idle_means
from lit_compress.quantization import quantize


class Net(nn.Module):
    """A convolution, a step, and a linear layer."""

    def __init__(self, step: Callable[[Tensor], Tensor], features: int = 4) -> None:
        super().__init__()
        self.conv, self.fc, self.step = nn.Conv2d(3, 4, 3), nn.Linear(features, 2), step

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc(self.step(F.relu(self.conv(x))).flatten(1))
        return out


def changed(x: Tensor) -> Tensor:
    """What is averaged stays what it was, whatever becomes of the average."""
    mean = x.mean([2, 3], keepdim=True)
    mean.add_(1)
    return x * mean


def names(program: torch.export.ExportedProgram) -> list[str]:
    return [str(node.target) for node in program.graph_module.graph.nodes]


@pytest.mark.parametrize(
    "step",
    [
        lambda x: x.mean([2, 3]),
        lambda x: x.mean((-1, -2), keepdim=True),
        lambda x: x.mean(3),
        lambda x: F.adaptive_avg_pool2d(x, 1),
        lambda x: F.adaptive_avg_pool1d(x.flatten(2), 1),
        changed,
    ],
)
def test_an_average_over_one_pixel_is_taken_out(step: Callable[[Tensor], Tensor]) -> None:
    torch.manual_seed(0)
    network, images = Net(step).eval(), torch.randn(5, 3, 3, 3)
    program = capture(network, images[:2])
    assert not [name for name in names(program) if "mean" in name or "avg_pool" in name]
    assert drop_idle_means(program) == 0
    with torch.no_grad():
        assert torch.equal(program.module()(images), network(images))


@pytest.mark.parametrize(
    ("step", "features"),
    [
        (lambda x: x.mean([2, 3]), 4),
        (lambda x: x.mean(1, keepdim=True), 4),
        (lambda x: x.mean([2]), 8),
        (lambda x: x.mean(0, keepdim=True) + x, 16),
        (lambda x: F.adaptive_avg_pool2d(x, 1), 4),
        (lambda x: F.adaptive_avg_pool2d(x, (2, 1)), 8),
    ],
)
def test_other_averages_stay(step: Callable[[Tensor], Tensor], features: int) -> None:
    torch.manual_seed(0)
    network, images = Net(step, features).eval(), torch.randn(5, 3, 4, 4)
    assert [name for name in names(capture(network, images[:2])) if "mean" in name or "avg" in name]


def test_an_adaptive_pool_to_the_size_that_is_there_is_taken_out() -> None:
    network = Net(lambda x: F.adaptive_avg_pool2d(x, 2), 16).eval()
    assert not [n for n in names(capture(network, torch.randn(2, 3, 4, 4))) if "avg_pool" in n]


def test_an_average_that_is_the_output_stays() -> None:
    network, images = (
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1)),
        torch.randn(2, 3, 3, 3),
    )
    program = capture(network.eval(), images)
    assert [name for name in names(program) if "avg_pool" in name]
    with torch.no_grad():
        assert torch.equal(program.module()(images), network(images))


def test_the_file_has_no_pool_over_one_pixel(tmp_path: Path) -> None:
    """A MobileNetV2 at 32 px spent a seventh of its time there, at batch 32."""
    torch.manual_seed(0)
    network, images = Net(lambda x: x.mean([2, 3])).eval(), torch.randn(16, 3, 3, 3)
    write_onnx(quantize(network, [images], images), images, tmp_path / "m.onnx")
    found = {node.op_type for node in onnx.load(tmp_path / "m.onnx").graph.node}
    assert not found & {"GlobalAveragePool", "ReduceMean"}
    with torch.no_grad():
        expected = network(images)
    found_scores = torch.from_numpy(OnnxModel(tmp_path / "m.onnx")(images))
    torch.testing.assert_close(found_scores, expected, rtol=0, atol=0.05)
