"""Count the parameters, non-zeros and multiply-accumulates of a module, in total and per layer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode


@dataclass(frozen=True)
class LayerCost:
    """Cost of one layer of a module.

    Attributes:
        name: Name of the layer in the module.
        kind: Name of the layer's class.
        parameters: Number of elements of the layer's own parameters.
        nonzero: Number of those elements that are not zero.
        macs: Multiply-accumulates of one forward with the example, children included.
    """

    name: str
    kind: str
    parameters: int
    nonzero: int
    macs: int


@dataclass(frozen=True)
class Cost:
    """Cost of a module.

    Attributes:
        parameters: Number of elements of all parameters; a shared tensor counts once.
        nonzero: Number of those elements that are not zero.
        macs: Multiply-accumulates of one forward with the example.
        layers: Cost of each module that has parameters or computes, in order.
    """

    parameters: int
    nonzero: int
    macs: int
    layers: tuple[LayerCost, ...]


Inputs = Tensor | tuple[Any, ...] | list[Any] | Mapping[str, Any]


def forward_arguments(inputs: Inputs) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
    """Return the positional and keyword arguments of a forward call.

    Args:
        inputs: One tensor, a tuple or list of positional arguments, or a mapping of keywords.

    Example:
        >>> forward_arguments({"x": 1})
        ((), {'x': 1})
        >>> forward_arguments((1, 2))
        ((1, 2), {})
    """
    if isinstance(inputs, Mapping):
        return (), inputs
    return (tuple(inputs), {}) if isinstance(inputs, (tuple, list)) else ((inputs,), {})


def cost(module: nn.Module, example: Inputs) -> Cost:
    """Count the parameters, non-zeros and MACs of a module with one example batch.

    MACs are half the operations that :class:`torch.utils.flop_counter.FlopCounterMode` counts:
    convolutions and matrix products. Biases, norms and activations are not counted.

    Args:
        module: Any module. Its training modes are restored afterwards.
        example: Input of the forward: a tensor, a tuple of arguments, or a mapping of keywords. A
            batch of 1 gives the MACs per image.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(8 * 6 * 6, 10))
        >>> total = cost(net, torch.zeros(1, 3, 8, 8))
        >>> total.parameters, total.macs
        (3114, 10656)
        >>> total.layers[0]
        LayerCost(name='0', kind='Conv2d', parameters=224, nonzero=224, macs=7776)
    """
    counter = FlopCounterMode(display=False)
    args, kwargs = forward_arguments(example)
    with evaluating(module), torch.no_grad(), attention_unfused(), counter:
        module(*args, **kwargs)
    flops = {name: sum(ops.values()) for name, ops in counter.get_flop_counts().items()}
    # FlopCounterMode names the root module by its class, and its children "Class.name".
    root = type(module).__name__
    layers = []
    for name, child in module.named_modules():
        key = f"{root}.{name}" if name else root
        if child._parameters or (key in flops and not any(child.children())):
            macs = flops.get(key, 0) // 2
            layers.append(LayerCost(name, type(child).__name__, *_own_counts(child), macs))
    parameters = list(module.parameters())
    return Cost(
        parameters=sum(p.numel() for p in parameters),
        nonzero=sum(int(torch.count_nonzero(p)) for p in parameters),
        macs=counter.get_total_flops() // 2,
        layers=tuple(layers),
    )


def _own_counts(module: nn.Module) -> tuple[int, int]:
    """Return the number of elements and of non-zeros of a module's own parameters."""
    own = [p for p in module._parameters.values() if p is not None]
    return sum(p.numel() for p in own), sum(int(torch.count_nonzero(p)) for p in own)


@contextmanager
def attention_unfused() -> Iterator[None]:
    """Disable the fused path of nn.MultiheadAttention, which FlopCounterMode does not count."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Put a module into eval mode, and restore the mode of every child afterwards."""
    modes = {child: child.training for child in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for child, training in modes.items():
            child.training = training
