"""Parameters, non-zeros and multiply-accumulates of a module, in all and by layer."""

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
    """One layer's share of the cost.

    Attributes:
        name: Its name in the module.
        kind: Its class.
        parameters: Elements of its own parameters.
        nonzero: Those that are not zero.
        macs: Multiply-accumulates of one forward of the example, its children's included.
    """

    name: str
    kind: str
    parameters: int
    nonzero: int
    macs: int


@dataclass(frozen=True)
class Cost:
    """What a module costs.

    Attributes:
        parameters: Elements of all parameters, each tensor once.
        nonzero: Those that are not zero.
        macs: Multiply-accumulates of one forward of the example.
        layers: The modules that hold parameters or compute, in order.
    """

    parameters: int
    nonzero: int
    macs: int
    layers: tuple[LayerCost, ...]


Inputs = Tensor | tuple[Any, ...] | list[Any] | Mapping[str, Any]


def forward_arguments(inputs: Inputs) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
    """Return a forward's arguments: one tensor, several in a tuple, or keywords in a mapping."""
    if isinstance(inputs, Mapping):
        return (), inputs
    return (tuple(inputs), {}) if isinstance(inputs, (tuple, list)) else ((inputs,), {})


def cost(module: nn.Module, example: Inputs) -> Cost:
    """Count a module's parameters, non-zeros and MACs on one example batch.

    MACs are half the operations that ``torch.utils.flop_counter.FlopCounterMode`` counts:
    convolutions and matrix products; biases, norms and activations are not in it.

    Args:
        module: Any module; it is left in the mode it was in.
        example: Its input (or a tuple of arguments, or a mapping of keywords); give a batch of 1
            for MACs an image.
    """
    counter = FlopCounterMode(display=False)
    args, kwargs = forward_arguments(example)
    with evaluating(module), torch.no_grad(), attention_unfused(), counter:
        module(*args, **kwargs)
    flops = {name: sum(ops.values()) for name, ops in counter.get_flop_counts().items()}
    # The counter names a module by its class, and its children below that.
    root = type(module).__name__
    layers = []
    for name, child in module.named_modules():
        key = f"{root}.{name}" if name else root
        if child._parameters or (key in flops and not any(child.children())):
            macs = flops.get(key, 0) // 2
            layers.append(LayerCost(name, type(child).__name__, *_own(child), macs))
    parameters = list(module.parameters())
    return Cost(
        parameters=sum(p.numel() for p in parameters),
        nonzero=sum(int(torch.count_nonzero(p)) for p in parameters),
        macs=counter.get_total_flops() // 2,
        layers=tuple(layers),
    )


def _own(module: nn.Module) -> tuple[int, int]:
    own = [p for p in module._parameters.values() if p is not None]
    return sum(p.numel() for p in own), sum(int(torch.count_nonzero(p)) for p in own)


@contextmanager
def attention_unfused() -> Iterator[None]:
    """Keep nn.MultiheadAttention off its fused path, whose operations are not counted."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Hold a module in eval mode, and put every child back in the mode it was in."""
    modes = {child: child.training for child in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for child, training in modes.items():
            child.training = training
