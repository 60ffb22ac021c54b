"""What is held in eval mode while a network trains, on plain modules."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import mobilenet_v2
from torchvision.ops import StochasticDepth

from lit_compress.callbacks._overfitting.eval_mode import EvalMode, still_random
from lit_compress.errors import PatternError


class DropPath(nn.Module):
    """As timm's: a class of its own, known by its name."""

    def forward(self, x: Tensor) -> Tensor:
        return x * (torch.rand(len(x), 1) < 0.5) if self.training else x


class Dropper(nn.Sequential):
    """Its name says nothing."""


class Functional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.dropout(self.layer(x), 0.5, self.training)


class OwnNorm(nn.Module):
    """Keeps a running mean, and is no batch norm of torch's."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(4))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.mean.mul_(0.9).add_(0.1 * x.mean(0))
        return x - self.mean


def everything() -> Dropper:
    layers = [nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(), nn.AlphaDropout(), DropPath()]
    return Dropper(*layers, StochasticDepth(0.5, "row"), nn.ReLU(), nn.LayerNorm(4))


def test_holds_what_regularises_and_nothing_else() -> None:
    net = everything()
    held = EvalMode()
    held.attach(net)
    assert held.names() == ["1", "2", "3", "4", "5"]
    assert net.training
    net.train()
    assert held.broken() == "1"
    held.apply()
    assert held.broken() is None
    assert [layer.training for layer in net] == [True] + [False] * 5 + [True] * 2
    held.release()
    assert all(layer.training for layer in net)


def test_what_the_user_froze_stays_frozen() -> None:
    net = everything()
    net[1].eval()
    held = EvalMode()
    held.attach(net)
    held.release()
    assert not net[1].training


def test_only_scales_and_shifts_of_norms_lose_their_gradients() -> None:
    net = everything()
    held = EvalMode()
    held.attach(net)
    net(torch.randn(8, 4)).sum().backward()
    held.drop_gradients()
    without = {name for name, p in net.named_parameters() if p.grad is None}
    assert without == {"1.weight", "1.bias"}
    held.release()
    net(torch.randn(8, 4)).sum().backward()
    held.drop_gradients()
    assert all(p.grad is not None for p in net.parameters())


def test_attention_with_dropout_and_its_kin() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, dropout=0.5, batch_first=True)
    held = EvalMode()
    held.attach(layer)
    assert {"self_attn", "dropout", "dropout1", "dropout2"} == set(held.names())
    x = torch.randn(2, 3, 8)
    assert torch.equal(layer(x), layer(x))


@pytest.mark.parametrize(
    ("net", "shape"), [(everything(), (2, 4)), (mobilenet_v2(num_classes=4), (2, 3, 32, 32))]
)
def test_a_held_network_trains_as_it_evaluates(net: nn.Module, shape: tuple[int, ...]) -> None:
    x = torch.randn(shape)
    twin = copy.deepcopy(net)
    assert still_random(twin, twin, x) is None
    expected = copy.deepcopy(net).eval()(x)
    EvalMode().attach(net.train())
    torch.testing.assert_close(net(x), expected)


@pytest.mark.parametrize(
    ("odd", "name"),
    [(Functional(), "1"), (OwnNorm(), "1"), (nn.LSTM(4, 4, 2, dropout=0.5), "1")],
)
def test_finds_what_still_varies(odd: nn.Module, name: str) -> None:
    net = nn.Sequential(nn.Linear(4, 4), odd)
    assert still_random(net, net, torch.randn(8, 4)) == name
    assert still_random(net, net, torch.randn(8, 4), ["1"]) is None


def test_a_part_of_a_module_can_be_run_alone() -> None:
    net = nn.ModuleDict({"good": nn.Linear(4, 4), "bad": Functional()})
    assert still_random(net, net["good"], torch.randn(2, 4)) is None
    assert still_random(net, net["bad"], (torch.randn(2, 4),)) == "bad"


def test_a_pattern_that_matches_nothing_is_refused() -> None:
    with pytest.raises(PatternError, match="hold: 'head' matches no module of Dropper"):
        EvalMode(["head"]).attach(everything())
