"""Equalisation: like ranges of channels, and the same function."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.fx import GraphModule

from lit_compress.artifact import sqnr_db
from lit_compress.export.onnx import capture
from lit_compress.modules import ShuffleNetV2
from lit_compress.quantization import convert as conversion
from lit_compress.quantization import quantize
from lit_compress.quantization.rewrites.equalize import equalize


def captured(network: nn.Module, example: Tensor) -> GraphModule:
    graph: GraphModule = capture(network.eval(), example).module(check_guards=False)
    return graph


def uneven(weight: Tensor, smallest: float = 2**-5) -> None:
    """Make the filters of a layer as unlike in size as 1 and 32."""
    with torch.no_grad():
        factors = torch.logspace(0, 1, len(weight), base=smallest)
        weight.mul_(factors.view(-1, *[1] * (weight.dim() - 1)))


class Mixed(nn.Module):
    """What channels go through in a ShuffleNetV2, and a flattened head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.depthwise = nn.Sequential(
            nn.Conv2d(4, 8, 3, padding=1, groups=4, bias=False), nn.BatchNorm2d(8)
        )
        self.point = nn.Sequential(nn.Conv2d(8, 4, 1), nn.LeakyReLU(0.1))
        self.pool = nn.Sequential(nn.MaxPool2d(2), nn.AvgPool2d(2))
        self.head = nn.Sequential(nn.Linear(8 * 4, 6), nn.ReLU(), nn.Linear(6, 5))
        uneven(self.stem[1].weight)
        uneven(self.depthwise[1].weight)
        uneven(self.point[0].weight)
        uneven(self.head[0].weight)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        left, right = x.chunk(2, dim=1)
        x = torch.cat([left, self.point(self.depthwise(right))], dim=1)
        n, c, h, w = x.shape
        x = x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
        out: Tensor = self.head(self.pool(x).flatten(1))
        return out


def scaled(factors: dict[str, Tensor]) -> int:
    """Return how many channels of layers' own tensors were scaled."""
    return max(int((factor != 1).sum()) for factor in factors.values())


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**16))
def test_outputs_are_the_same(seed: int) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network, images = Mixed().double(), torch.randn(4, 3, 8, 8, dtype=torch.double)
    graph = captured(network, images[:2])
    with torch.no_grad():
        before = graph(images)
        assert scaled(equalize(graph, [images])) >= 10
        torch.testing.assert_close(graph(images), before, rtol=0, atol=1e-12)


def test_channels_come_nearer_to_one_range() -> None:
    network = nn.Sequential(nn.Conv2d(3, 16, 1, bias=False), nn.ReLU(), nn.Conv2d(16, 4, 1))
    uneven(network[0].weight)
    images = torch.randn(8, 3, 4, 4)
    graph = captured(network, images[:2])

    def spread() -> float:
        weight = graph.get_parameter("0.weight")
        with torch.no_grad():
            largest = nn.functional.conv2d(images, weight).relu().amax((0, 2, 3))
        return float(largest.max() / largest.min())

    before = spread()
    assert before > 20
    equalize(graph, [images])
    assert spread() < before**0.5 * 1.01  # half of it at least


def test_filters_of_single_channels_take_all_of_the_difference() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 1, bias=False), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=8))
    uneven(network[0].weight)
    images = torch.randn(8, 3, 6, 6)
    graph = captured(network, images[:2])
    equalize(graph, [images])
    with torch.no_grad():
        weight = graph.get_parameter("0.weight")
        largest = nn.functional.conv2d(images, weight).relu().amax((0, 2, 3))
    assert largest.max() / largest.min() <= 1.01


def test_channels_of_a_signal_are_followed_through_a_pool() -> None:
    """A pool of one dimension ended the whole of it, and no channel was scaled."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv1d(3, 8, 1), nn.ReLU(), nn.AvgPool1d(2), nn.Conv1d(8, 4, 1))
    uneven(network[0].weight)
    signals = torch.randn(8, 3, 6)
    graph = captured(network, signals[:2])
    with torch.no_grad():
        before = graph(signals)
        assert scaled(equalize(graph, [signals])) >= 6
        torch.testing.assert_close(graph(signals), before)


class Joined(nn.Module):
    """Two layers side by side, one 32 times as small, and filters of single channels."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Conv2d(3, 4, 1, bias=False), nn.Conv2d(3, 4, 1, bias=False)
        self.last = nn.Conv2d(8, 8, 3, groups=8)
        with torch.no_grad():
            self.other.weight.copy_(self.one.weight / 32)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(torch.cat([self.one(x), self.other(x)], 1))
        return out


def test_channels_that_are_joined_have_one_range() -> None:
    """A concatenation is one tensor: its parts were brought to a range each."""
    torch.manual_seed(0)
    network, images = Joined(), torch.randn(8, 3, 6, 6)
    graph = captured(network, images[:2])
    equalize(graph, [images])
    with torch.no_grad():
        parts = [graph.get_parameter(f"{name}.weight") for name in ("one", "other")]
        joined = torch.cat([nn.functional.conv2d(images, weight) for weight in parts], 1)
    largest = joined.abs().amax((0, 2, 3))
    assert largest.max() / largest.min() <= 1.01


@pytest.mark.usefixtures("shallow")
def test_int8_is_nearer_to_float_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A channel 24 times as large as the others took 24 dB from the paper's ShuffleNetV2."""
    torch.manual_seed(0)
    network = ShuffleNetV2(in_channels=3).eval()
    norm = next(m for m in network.modules() if isinstance(m, nn.BatchNorm2d))
    with torch.no_grad():
        norm.weight[0] *= 24
        images = torch.randn(32, 3, 32, 32)
        expected = network(images).numpy()
        found = quantize(network, [images], images[:2])(images).numpy()
        monkeypatch.setattr(conversion, "equalize", lambda *_: 0)
        without = quantize(network, [images], images[:2])(images).numpy()
    assert sqnr_db(expected, found) > sqnr_db(expected, without) + 1


class Added(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.other, self.head = (nn.Conv2d(3, 3, 1) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.one(x) + self.other(x))
        return out


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.shared = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.shared(self.shared(self.one(x)))
        return out


class Averaged(nn.Module):
    """A mean over the channels, where the image is as high as there are channels."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.head = nn.Conv2d(3, 5, 1), nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.one(x).mean(1))
        return out


class Centred(nn.Module):
    """A convolution that another reads, and a mean over its channels."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.head = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.one(x)
        out: Tensor = self.head(x) - x.mean(1, keepdim=True)
        return out


class Smoothed(nn.Module):
    """A pool over features: it takes rows of features for one image without a batch."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.pool, self.head = nn.Linear(3, 4), nn.MaxPool1d(3, 1, 1), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.pool(self.one(x.mean((2, 3)))))
        return out


@pytest.mark.parametrize(
    "network",
    [
        Added(),
        Averaged(),
        Centred(),
        Smoothed(),
        Twice(),
        nn.Sequential(nn.Conv2d(3, 4, 1), nn.Sigmoid(), nn.Conv2d(4, 4, 1)),
        nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU6(), nn.Conv2d(4, 4, 1)),
        nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1, groups=2)),
        nn.Sequential(nn.Conv2d(3, 4, 1), nn.ConvTranspose2d(4, 4, 1)),
        nn.Sequential(nn.Conv2d(3, 4, 1), nn.GroupNorm(2, 4), nn.Conv2d(4, 4, 1, groups=2)),
        nn.Conv2d(3, 4, 1),
    ],
    ids=lambda network: (
        type(network[1] if isinstance(network, nn.Sequential) else network).__name__
    ),
)
def test_what_lets_no_factor_pass_is_left_alone(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            uneven(module.weight)
    images = torch.randn(4, 3, 5, 5)
    graph = captured(network, images[:2])
    with torch.no_grad():
        before = graph(images)
        assert not equalize(graph, [images])
        assert torch.equal(graph(images), before)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_batches_that_are_not_finite_change_nothing(value: float) -> None:
    network = Mixed()
    images = torch.randn(4, 3, 8, 8)
    graph = captured(network, images[:2])
    before = {name: tensor.clone() for name, tensor in graph.named_parameters()}
    assert not equalize(graph, [images, torch.full_like(images, value)])
    assert all(torch.equal(before[name], tensor) for name, tensor in graph.named_parameters())


def test_a_network_of_one_range_is_left_as_it_is() -> None:
    network = nn.Sequential(nn.Linear(4, 3, bias=False), nn.ReLU(), nn.Linear(3, 2))
    with torch.no_grad():
        network[0].weight.copy_(torch.eye(3, 4))
    assert not equalize(captured(network, torch.eye(4)[:2]), [torch.eye(4)])


def test_the_users_network_is_not_touched() -> None:
    network, images = Mixed().eval(), torch.randn(4, 3, 8, 8)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    quantize(network, [images], images[:2])
    assert all(torch.equal(before[name], t) for name, t in network.state_dict().items())
