"""Biases: the mean error of a layer is gone, and int32 sums take them without rounding."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from onnx import numpy_helper
from torch import Tensor, nn

from lit_compress.artifact import OnnxModel, sqnr_db
from lit_compress.export.onnx import write_onnx
from lit_compress.quantization import Calibrated, quantize
from lit_compress.quantization.rewrites import biases


def rounded(values: Tensor, scale: Tensor | float, zero: int, low: int, high: int) -> Tensor:
    """Quantised and back, written out."""
    steps = torch.clamp(torch.round(values / scale) + zero, low, high)
    return (steps - zero) * scale


def test_the_mean_of_each_channel_is_what_it_is_in_float() -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(2, 6, 3)
    with torch.no_grad():
        layer.weight.mul_(torch.logspace(0, -2, 6).view(-1, 1, 1, 1))
    images = torch.rand(64, 2, 5, 5) * torch.tensor([1.0, 0.02]).view(1, 2, 1, 1)
    with torch.no_grad():
        expected = layer(images)
        low, high = float(images.min().clamp(max=0)), float(images.max())
        step = (high - low) / 255
        pixels = rounded(images, step, round(-low / step), 0, 255)
        scale = layer.weight.abs().amax((1, 2, 3), keepdim=True) / 127
        weight = rounded(layer.weight, scale, 0, -127, 127)
        shift = (F.conv2d(pixels, weight, layer.bias) - expected).mean((0, 2, 3))
        found = quantize(layer, [images[:20], images[20:]], images[:2])(images)
    left = (found - expected).mean((0, 2, 3))
    assert shift.abs().max() > 1e-4
    assert left.abs().max() < 0.05 * shift.abs().max()


def steps_of_biases(path: Path) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return the biases of a file's convolutions in steps of their sums, and the weight scales."""
    graph = onnx.load(path).graph
    held = {item.name: numpy_helper.to_array(item) for item in graph.initializer}
    made = {name: node for node in graph.node for name in node.output}
    steps, scales = [], []
    for node in graph.node:
        if node.op_type == "Conv":
            of_input, of_weight = (held[made[name].input[1]] for name in node.input[:2])
            steps.append(held[node.input[2]] / (of_input.astype(float) * of_weight))
            scales.append(of_weight)
    return steps, scales


class Depthwise(nn.Sequential):
    """Its input is mostly nothing, what there is is made much of, and is clipped: biases count."""

    def __init__(self) -> None:
        super().__init__(nn.Conv2d(16, 16, 3, groups=16), nn.ReLU6(), nn.Conv2d(16, 10, 1))
        with torch.no_grad():
            self[0].weight.mul_(4000)
            self[0].bias.uniform_(0.5, 5)


def spikes() -> Tensor:
    return torch.where(torch.rand(64, 16, 6, 6) < 0.002, torch.rand(64, 16, 6, 6) * 6, 0.0)


def test_biases_are_whole_numbers_of_the_steps_of_their_sums(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    network, images = Depthwise().eval(), spikes()
    write_onnx(quantize(network, [images], images[:2]), images[:2], tmp_path / "m.onnx")
    steps, scales = steps_of_biases(tmp_path / "m.onnx")
    monkeypatch.setattr(biases, "_widen", lambda *_: None)
    write_onnx(quantize(network, [images], images[:2]), images[:2], tmp_path / "plain.onnx")
    before, narrow = steps_of_biases(tmp_path / "plain.onnx")
    assert len(steps) == 2
    off = [np.abs(found - found.round())[np.abs(found) >= 1] for found in steps]
    assert all(
        (error < 1e-6 * np.abs(found).max()).all() for error, found in zip(off, steps, strict=True)
    )
    assert max(np.abs(found - found.round()).max() for found in before) > 0.1
    for wide, least, found in zip(scales, narrow, before, strict=True):
        assert (wide >= least * (1 - 1e-6)).all()
        assert (
            wide <= least * (1 + 1.1 / np.maximum(np.floor(np.abs(found)), 1)) * (1 + 1e-6)
        ).all()


def test_rounded_biases_do_not_shift_the_outputs_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ONNX Runtime rounds biases to int32: a MobileNetV2 had 23 dB in it for 31."""
    torch.manual_seed(0)
    network, images = Depthwise().eval(), spikes()

    def decibels(name: str) -> float:
        write_onnx(quantize(network, [images], images[:2]), images[:2], tmp_path / name)
        with torch.no_grad():
            return sqnr_db(network(images).numpy(), OnnxModel(tmp_path / name)(images))

    found = decibels("m.onnx")
    monkeypatch.setattr(biases, "_widen", lambda *_: None)
    assert found > decibels("plain.onnx") + 3


class Shared(nn.Module):
    """One layer, used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.last = nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(self.layer(self.layer(x)))
        return out


class OfParameter(nn.Module):
    """A convolution over a picture that is learned, without a batch."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.other = nn.Conv2d(4, 6, 3), nn.Conv2d(3, 6, 3)
        self.picture = nn.Parameter(torch.randn(4, 4, 4))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.other(x) + self.conv(self.picture.relu() + x.mean() * 0).mean()
        return out


@pytest.mark.parametrize(
    ("network", "shape"),
    [
        (Shared(), (64, 4)),
        (OfParameter(), (64, 3, 6, 6)),
        (nn.Sequential(nn.Conv2d(3, 4, 1), nn.ConvTranspose2d(4, 6, 2, groups=2)), (64, 3, 6, 6)),
        (nn.Sequential(nn.Conv2d(3, 4, 1), nn.ConvTranspose2d(4, 4, 2, groups=4)), (64, 3, 6, 6)),
        (nn.Sequential(nn.Conv1d(3, 4, 3, padding="same"), nn.Conv1d(4, 4, 1)), (64, 3, 6)),
        (nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3, bias=False)), (64, 5, 4)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_any_layer_may_have_a_bias(network: nn.Module, shape: tuple[int, ...]) -> None:
    """A grouped transposed convolution has fewer scales than biases, which was an error."""
    torch.manual_seed(0)
    images = torch.randn(shape)
    with torch.no_grad():
        found = quantize(network.eval(), [images], images[:2])(images).numpy()
        assert sqnr_db(network(images).numpy(), found) > 30


def test_a_bias_of_a_channel_without_weights_fits_int32(tmp_path: Path) -> None:
    """It took more steps than int32 has, as its weights' scale was next to nothing."""
    torch.manual_seed(0)
    network, images = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1)), torch.rand(64, 3, 6, 6)
    with torch.no_grad():
        network[0].weight[1] = 0
        network[0].bias[1] = 5
        images /= 100
        expected = network(images).numpy()
    write_onnx(quantize(network.eval(), [images], images[:2]), images[:2], tmp_path / "m.onnx")
    assert sqnr_db(expected, OnnxModel(tmp_path / "m.onnx")(images)) > 35


def test_layers_left_in_float_keep_their_biases() -> None:
    torch.manual_seed(0)
    network, images = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)), torch.randn(64, 4)
    calibrated = Calibrated(network, [images], images[:2])
    with torch.no_grad():
        plain = calibrated.convert(calibrated.layers)(images)
        torch.testing.assert_close(plain, network(images), rtol=0, atol=1e-6)
        int8 = calibrated.convert()(images)
        again = calibrated.convert(calibrated.layers)(images)
    assert not torch.allclose(int8, plain, rtol=0, atol=1e-6)
    assert torch.equal(again, plain)


class Shared(nn.Module):
    """Two calls that share weight and bias, the bias alone, or the weight alone."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.one, self.other = nn.Conv2d(3, 8, 3), nn.Conv2d(3, 8, 3)
        self.head = nn.Linear(16, 4)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        weight = self.other.weight if self.kind == "bias" else self.one.weight
        bias = self.other.bias if self.kind == "weight" else self.one.bias
        seen = [self.one(x), F.conv2d(y, weight, bias)]
        out: Tensor = self.head(torch.cat([each.relu().mean((2, 3)) for each in seen], 1))
        return out


@pytest.mark.parametrize(
    ("kind", "unit"), [("both", 0.0), ("both", 1e-6), ("bias", 1e-9), ("weight", 1e-9)]
)
def test_int32_has_room_for_the_bias_of_a_shared_layer_with_a_tiny_input(
    kind: str, unit: float, tmp_path: Path
) -> None:
    """The sums overflowed: 8 to 21 dB in ONNX Runtime, though the graph had 50."""
    torch.manual_seed(0)
    net = Shared(kind).eval()
    batch = (torch.randn(16, 3, 8, 8), unit * torch.randn(16, 3, 8, 8))
    graph = Calibrated(net, [batch], batch, names=("x", "y")).convert()
    write_onnx(graph, batch, tmp_path / "m.onnx", names=("x", "y"))
    expected = net(*batch).detach().numpy()
    assert sqnr_db(expected, OnnxModel(tmp_path / "m.onnx")(*batch)) > 40
