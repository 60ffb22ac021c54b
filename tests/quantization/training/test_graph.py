"""The graph of the file, run on the weights of the network."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn

from lit_compress.errors import ExportError
from lit_compress.quantization import Calibrated


class Residual(nn.Module):
    """Norms that are folded and one that is not, a residual, a concatenation, dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.norm = nn.BatchNorm2d(8, eps=1e-3, momentum=0.03)
        self.last = nn.BatchNorm2d(16)
        self.drop = nn.Dropout(0.2)
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        y = x + nn.functional.relu6(self.norm(self.depthwise(x)))
        out: Tensor = self.head(self.drop(self.last(torch.cat([x, y], 1)).mean((2, 3))))
        return out


def trained(network: nn.Module, images: Tensor) -> nn.Module:
    """Give the norms statistics, and weights that differ."""
    network.train()
    with torch.no_grad():
        for _ in range(5):
            network(images + torch.randn_like(images))
        for part in network.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.weight.uniform_(0.5, 1.5)
                part.bias.normal_(0, 0.2)
    return network.eval()


def tensors(network: nn.Module) -> dict[str, Tensor]:
    return {**dict(network.named_parameters()), **dict(network.named_buffers())}


NETWORKS: list[tuple[Callable[[], nn.Module], int]] = [
    (Residual, 12),
    (lambda: torchvision.models.shufflenet_v2_x0_5(num_classes=5), 32),
    (
        lambda: nn.Sequential(
            nn.ConvTranspose2d(3, 4, 2),
            nn.BatchNorm2d(4),
            nn.ReLU(inplace=True),
            nn.Flatten(),
            nn.Linear(4 * 81, 5),
        ),
        8,
    ),
]


@pytest.fixture(params=NETWORKS, ids=["residual", "shufflenet", "transposed"])
def case(request: pytest.FixtureRequest) -> tuple[nn.Module, Tensor]:
    make, side = request.param
    torch.manual_seed(0)
    images = torch.randn(16, 3, side, side)
    return trained(make(), images), images


def test_without_rounding_it_is_the_network_with_its_gradients(case: Any) -> None:
    network, images = case
    graph = Calibrated(network, [images], images, correct=False).trainable()
    live = tensors(network)
    torch.testing.assert_close(graph(live, [images], rounded=False)[0], network(images))
    weights = list(network.parameters())
    found = torch.autograd.grad(graph(live, [images], rounded=False)[0].square().sum(), weights)
    expected = torch.autograd.grad(network(images).square().sum(), weights)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


def test_with_rounding_it_is_the_int8_graph_after_any_training(case: Any) -> None:
    network, images = case
    calibrated = Calibrated(network, [images], images, correct=False)
    graph, live = calibrated.trainable(), tensors(network)
    optimizer = torch.optim.SGD(network.parameters(), 0.01, momentum=0.9)
    for _ in range(4):
        optimizer.zero_grad()
        found = graph(live, [images], network.train())[0]
        nn.functional.cross_entropy(found, torch.arange(16) % 5).backward()
        optimizer.step()
    with torch.no_grad():
        rounded = graph(live, [images])[0]
        int8 = Calibrated(network, [], images, ranges=calibrated.ranges).convert()(images)
    int8 = int8 if isinstance(int8, Tensor) else int8[0]
    # A value between two numbers goes to either: a step, for a few images.
    same = (rounded - int8).abs().amax(1) < 1e-4
    assert same.float().mean() >= 0.5
    assert (rounded - int8).norm() < 0.05 * rounded.norm()


def test_norms_may_use_the_statistics_of_the_batch() -> None:
    """As the network's own norms do in training, and their running statistics follow."""
    torch.manual_seed(0)
    images = torch.randn(64, 3, 12, 12)
    network = trained(Residual(), images)
    network.drop.p = 0.0  # type: ignore[union-attr]
    other = copy.deepcopy(network).train()
    live, shifted = tensors(network), images * 1.5 + 0.3
    graph = Calibrated(network, [images, shifted], images, correct=False).trainable()
    expected = other(shifted)
    found = graph(live, [shifted], network.train(), batched=True)[0]
    assert float(((found - expected).norm() / expected.norm()).detach()) < 0.15
    before = dict(trained(Residual(), images).named_buffers())
    for name, buffer in other.named_buffers():
        if "running" in name:  # `last` is behind a concatenation, and is not folded
            torch.testing.assert_close(live[name], buffer, rtol=0.05, atol=0.05)
            assert not torch.equal(live[name], before[name])
    found.square().sum().backward()
    expected.square().sum().backward()
    gradients = [
        torch.cat([p.grad.flatten() for p in net.parameters() if p.grad is not None])
        for net in (network, other)
    ]
    assert nn.functional.cosine_similarity(*gradients, dim=0) > 0.95


def test_dropout_goes_on_in_training_alone() -> None:
    images = torch.randn(8, 3, 12, 12)
    network = trained(Residual(), images)
    graph = Calibrated(network, [images], images, correct=False).trainable()
    live = tensors(network)
    assert [one.path for one in graph.dropouts] == ["drop"]
    assert torch.equal(graph(live, [images])[0], graph(live, [images])[0])
    assert not torch.equal(*(graph(live, [images], network.train())[0] for _ in range(2)))
    kept = graph._rounded.graph.get_submodule("switch_0.dropout")
    assert isinstance(kept, nn.Dropout)
    assert kept.p == 0.2


def settings_of(network: nn.Module) -> list[Any]:
    """Return what torchao's switch between training and evaluation changes."""
    found: list[Any] = []
    for part in network.modules():
        if isinstance(part, nn.BatchNorm2d):
            found.append((part.eps, part.momentum))
        if isinstance(part, nn.Dropout):
            found.append(part.p)
    return sorted(found, key=str)


def of_graph(graph: torch.fx.GraphModule) -> list[Any]:
    """Return the same of the operations of a captured graph."""
    found: list[Any] = []
    for node in graph.graph.nodes:
        if "batch_norm" in str(node.target):
            found.append((node.args[7], node.args[6]))
        if "dropout" in str(node.target):
            found.append(node.args[1])
    return sorted(found, key=str)


def test_eps_momentum_and_dropout_do_not_drift() -> None:
    """torchao's own flow changes them (pytorch/ao issues 2980 and 4107)."""
    images = torch.randn(8, 3, 12, 12)
    network = trained(Residual(), images)
    before = settings_of(network)
    live = tensors(network)
    calibrated = Calibrated(network, [images], images, correct=False)
    graph = calibrated.trainable()
    expected = network(images)
    for training in (True, False, True, False):
        graph(live, [images], network.train() if training else None)[0].sum().backward()
    assert settings_of(network) == before
    torch.testing.assert_close(graph(live, [images], rounded=False)[0], expected)
    assert drifts(copy.deepcopy(network), images), "torchao has mended it: the note can go"


def drifts(network: nn.Module, images: Tensor) -> bool:
    """Tell whether torchao's own flow of training and evaluation changes the settings."""
    from torchao.quantization.pt2e import allow_exported_model_train_eval

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        graph = torch.export.export(network.train(), (images,)).module()
        before = of_graph(graph)
        allow_exported_model_train_eval(graph)
        graph.eval()
        graph.train()
    return of_graph(graph) != before


def test_computed_weights_are_refused_by_name() -> None:
    network = nn.Sequential(nn.Linear(4, 4), nn.utils.parametrizations.weight_norm(nn.Linear(4, 2)))
    calibrated = Calibrated(network.eval(), [torch.randn(8, 4)], torch.randn(2, 4))
    with pytest.raises(ExportError, match="1 computes its weight from others"):
        calibrated.trainable()
