"""Small networks with channel shuffles."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.fx import GraphModule


def shuffled(x: Tensor, groups: int = 2) -> Tensor:
    n, c, h, w = x.shape
    return x.view(n, groups, c // groups, h, w).transpose(1, 2).contiguous().view(n, c, h, w)


class Network(nn.Module):
    """Layers by name, and a forward that uses them."""

    def __init__(self, forward: Callable[[Network, Tensor], Tensor], **layers: nn.Module) -> None:
        super().__init__()
        for name, layer in layers.items():
            setattr(self, name, layer)
        self.run = forward

    def forward(self, x: Tensor) -> Tensor:
        return self.run(self, x)


def conv(inputs: int, outputs: int, **options: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, options.pop("kernel_size", 1), **options)  # type: ignore[arg-type]


def captured(network: nn.Module, image: Tensor) -> GraphModule:
    program = torch.export.export(network.eval(), (image,))
    graph: GraphModule = program.module(check_guards=False)
    return graph
