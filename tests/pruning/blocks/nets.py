"""Residual networks of several kinds. The last layer of a branch makes it zero if it is zero."""

from __future__ import annotations

import copy
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional


class Basic(nn.Module):
    """As in ResNet: an activation after the sum; with a shortcut where the shape changes."""

    def __init__(self, width: int, out: int | None = None, act: bool = True) -> None:
        super().__init__()
        out = out or width
        self.a = nn.Conv2d(width, out, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(out)
        self.last = nn.Conv2d(out, out, 1)
        self.short = nn.Conv2d(width, out, 1) if out != width else None
        self.relu = nn.ReLU(inplace=True)
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        out = self.last(self.relu(self.bn(self.a(x))))
        out += x if self.short is None else self.short(x)
        return self.relu(out) if self.act else out


class Nested(nn.Module):
    """A block whose branch has a block."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = Basic(width, act=False)
        self.last = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.last(self.inner(torch.tanh(x)))


class PreNorm(nn.Module):
    """A transformer layer with two branches."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, 2, batch_first=True)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        normed = self.norm1(x)
        x = x + self.attention(normed, normed, normed, need_weights=False)[0]
        return x + self.mlp(self.norm2(x))


def images(*blocks: nn.Module, width: int = 4, first: nn.Module | None = None) -> nn.Sequential:
    """Return a network of images with some blocks in the middle, whose norms are not trivial."""
    torch.manual_seed(0)
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LazyLinear(3))
    net = nn.Sequential(nn.Conv2d(1, width, 3), first or nn.ReLU(), *blocks, head)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.running_mean, 0, 0.2)  # type: ignore[arg-type]
    net(X)
    return net.eval()


def tokens(count: int = 2, width: int = 8) -> nn.Sequential:
    """Return a pre-norm transformer."""
    torch.manual_seed(0)
    blocks = [PreNorm(width) for _ in range(count)]
    return nn.Sequential(
        nn.Linear(5, width), *blocks, nn.LayerNorm(width), nn.Linear(width, 3)
    ).eval()


def zeroed(net: nn.Module, lasts: Iterable[str]) -> nn.Module:
    """Return a copy in which the last layers of branches are zero."""
    made = copy.deepcopy(net)
    for name in lasts:
        for parameter in made.get_submodule(name).parameters():
            nn.init.zeros_(parameter)
    return made


def relu_of(x: Tensor) -> Tensor:
    """Return an activation that code calls without a module."""
    return functional.relu(x)


#: Inputs of the networks of images and of tokens.
X = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
T = torch.randn(2, 6, 5, generator=torch.Generator().manual_seed(0))
