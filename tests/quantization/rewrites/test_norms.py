"""Batch norms are folded where that changes nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from lit_compress.artifact import OnnxModel, sqnr_db
from lit_compress.export.onnx import capture, write_onnx
from lit_compress.quantization import quantize
from lit_compress.quantization.rewrites.norms import block_norm_folding


def norm(channels: int) -> nn.BatchNorm2d:
    made = nn.BatchNorm2d(channels)
    nn.init.uniform_(made.weight, 2, 5)
    nn.init.normal_(made.bias)
    nn.init.normal_(made.running_mean)  # type: ignore[arg-type]
    return made


class PreActivation(nn.Module):
    """The output of a convolution goes through a norm, and past it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm, self.conv = nn.Conv2d(3, 6, 3), norm(6), nn.Conv2d(6, 6, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        out: Tensor = x + self.conv(self.norm(x).relu())
        return out


class TwoNorms(nn.Module):
    """One convolution, twice, each time with another norm."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.one, self.other = nn.Conv2d(3, 3, 1), norm(3), norm(3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.other(self.conv(self.one(self.conv(x)).relu()))
        return out


class TiedWeights(TwoNorms):
    """The two norms share their weight, and differ in all else."""

    def __init__(self) -> None:
        super().__init__()
        self.other.weight = self.one.weight


class OnceWithout(nn.Module):
    """One convolution, twice, of which once there is no norm."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 1), norm(3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(self.norm(self.conv(x)).relu())
        return out


class Repeated(nn.Module):
    """A block that is run twice."""

    def __init__(self) -> None:
        super().__init__()
        self.block = nn.Sequential(nn.Conv2d(3, 3, 1), norm(3), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.block(self.block(x))
        return out


class Siamese(nn.Module):
    """One convolution without a bias, for two images."""

    def __init__(self) -> None:
        super().__init__()
        self.block = nn.Sequential(nn.Conv2d(3, 6, 1, bias=False), norm(6), nn.ReLU())
        self.head = nn.Conv2d(6, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.block(x) - self.block(x.flip(0)))
        return out


class TiedBias(nn.Module):
    """Two convolutions with one bias, each in front of the same norm."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other, self.norm = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1), norm(3)
        self.other.bias = self.one.bias

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.norm(self.other(self.norm(self.one(x)).relu()))
        return out


class OtherEpsilon(TwoNorms):
    """Two norms with the same tensors, of which one adds much to the variance."""

    def __init__(self) -> None:
        super().__init__()
        self.other.load_state_dict(self.one.state_dict())
        for name, value in (*self.one.named_parameters(), *self.one.named_buffers()):
            setattr(self.other, name, value)
        self.other.eps = 3.0


class Tokens(nn.Module):
    """A norm of the second axis, behind a linear layer of the last."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.norm, self.last = nn.Linear(8, 3), nn.BatchNorm1d(3), nn.Linear(3, 2)
        nn.init.uniform_(self.norm.weight, 2, 5)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(self.norm(self.linear(x[:, :, 0])))
        return out


class Computed(nn.Module):
    """A norm behind a convolution whose weight is computed: a constant in the graph."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.last = (
            weight_norm(nn.Conv2d(3, 6, 1)),
            norm(6),
            nn.Conv2d(6, 2, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(self.norm(self.conv(x)).relu())
        return out


class GroupedTransposed(nn.Module):
    """A norm behind a transposed convolution with groups."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose2d(3, 6, 2, stride=2, groups=3)
        self.norm, self.last = norm(6), nn.Conv2d(6, 2, 2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(self.norm(self.conv(x)))
        return out


NETWORKS = {
    GroupedTransposed: 1,
    PreActivation: 1,
    TwoNorms: 2,
    TiedWeights: 2,
    OnceWithout: 1,
    Repeated: 0,
    Siamese: 0,
    TiedBias: 2,
    OtherEpsilon: 2,
    Tokens: 1,
    Computed: 0,
}


@pytest.mark.parametrize("kind", NETWORKS)
def test_int8_is_near_to_float(kind: type[nn.Module], tmp_path: Path) -> None:
    """A norm was folded into what others used too: MaxViT had 1 dB.

    Folded into a grouped transposed convolution, it raised after all of the training. Of a shared
    convolution without a bias, the new bias was zero: torchgeo's FCSiamDiff had -2 dB.
    """
    torch.manual_seed(0)
    network, images = kind().eval(), torch.randn(32, 3, 8, 8)
    assert block_norm_folding(capture(network, images)) == NETWORKS[kind]
    graph = quantize(network, [images], images)
    with torch.no_grad():
        found = {"graph": graph(images).numpy()}
        if kind in (Siamese, GroupedTransposed):
            write_onnx(graph, images, tmp_path / "m.onnx")
            found["file"] = OnnxModel(tmp_path / "m.onnx")(images)
        for outputs in found.values():
            assert sqnr_db(network(images).numpy(), outputs) > 25


def test_norms_behind_a_layer_of_their_own_are_folded() -> None:
    network = nn.Sequential(nn.Conv2d(3, 6, 3), norm(6), nn.ReLU(), nn.Flatten(), nn.Linear(216, 2))
    images = torch.randn(4, 3, 8, 8)
    assert block_norm_folding(capture(network.eval(), images)) == 0
    graph = quantize(network, [images], images)
    assert not [node for node in graph.graph.nodes if "batch_norm" in str(node.target)]
