"""Which weights are not int8, and why."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from lit_compress.artifact import OnnxModel, sqnr_db
from lit_compress.export.onnx import write_onnx
from lit_compress.measure import int8_share
from lit_compress.quantization import Calibrated


class Bare(nn.Module):
    """Weights that belong to no layer."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(8, 32) * 0.2)
        self.v = nn.Parameter(torch.randn(32, 4) * 0.2)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x @ self.w) @ self.v


NETWORKS = [
    (nn.Sequential(weight_norm(nn.Conv1d(4, 8, 3)), nn.Flatten(), nn.Linear(56, 4)), (4, 9), 2),
    (
        nn.Sequential(nn.Conv3d(1, 4, 3), nn.ReLU(), nn.Conv3d(4, 2, 2), nn.Flatten()),
        (1, 5, 5, 5),
        2,
    ),
    (Bare(), (8,), 2),
    (
        nn.Sequential(nn.ConvTranspose1d(8, 8, 2, groups=4), nn.BatchNorm1d(8), nn.Flatten()),
        (8, 4),
        1,
    ),
]


@pytest.mark.parametrize(("network", "shape", "count"), NETWORKS)
def test_weights_of_every_kind_are_int8(
    network: nn.Module, shape: tuple[int, ...], count: int, tmp_path: Path
) -> None:
    """The file was as large as the float one, at 130 dB, and called int8 without a word."""
    torch.manual_seed(0)
    x, file = torch.randn(16, *shape), tmp_path / "model.onnx"
    calibrated = Calibrated(network, [x], x)
    write_onnx(calibrated.convert(), x, file)
    stored = [item for item in onnx.load(file).graph.initializer if len(item.dims) > 1]
    assert [item.data_type for item in stored] == [onnx.TensorProto.INT8] * count
    assert calibrated.float_weights() == ()
    assert int8_share(file) == 1
    with torch.no_grad():
        expected = network.eval()(x).numpy()
    assert sqnr_db(expected, OnnxModel(file)(x.numpy())) > 30


class Text(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rows = nn.Embedding(10, 4)
        self.gru = nn.GRU(4, 4, batch_first=True)
        self.last = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.gru(self.rows(x))[0][:, -1])


def test_float_weights_are_named_with_their_share_and_reason() -> None:
    x = torch.randint(0, 10, (4, 5))
    calibrated = Calibrated(Text(), [x], x)
    found = calibrated.float_weights(["last"], "net.")
    assert [(w.name, w.share) for w in found] == [
        ("net.gru/gru", pytest.approx(96 / 144)),
        ("net.rows/embedding", pytest.approx(40 / 144)),
        ("net.last", pytest.approx(8 / 144)),
    ]
    assert [w.reason for w in found] == [
        "gru has no int8 form here",
        "an embedding looks up rows and multiplies nothing",
        "left in float by skip or max_drop",
    ]


def test_layers_are_named_as_their_weights() -> None:
    x = torch.randn(4, 8)
    assert Calibrated(Bare(), [x], x).weighted == ("w", "v")
