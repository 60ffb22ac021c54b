"""The layers of a network, by the shapes that their time depends on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from lit_compress.measure.cost import Inputs, forward_arguments

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


@dataclass(frozen=True)
class Layer:
    """A conv or linear layer without its weights.

    Attributes:
        inputs: Number of channels that it reads.
        outputs: Number of channels that it computes.
        space: Size of its input along each axis behind the channels; for a linear layer the number
            of rows of one example, such as the tokens.
        groups: Number of groups of a convolution; 0 for a linear layer.
        kernel: Size of its kernel along each of these axes.
        stride: Its stride.
        padding: Padding at the beginning of each axis, and then at the end of each.
        dilation: Its dilation.

    Example:
        >>> Layer(inputs=8, outputs=4, space=(1,)).groups
        0
    """

    inputs: int
    outputs: int
    space: tuple[int, ...]
    groups: int = 0
    kernel: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()
    padding: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()


def layers_of(network: nn.Module, inputs: Inputs) -> tuple[Layer, ...]:
    """Return the conv and linear layers that a forward calls, in the order of the calls.

    A layer that is called twice is there twice. Transposed convolutions, and products that no layer
    holds, are not.

    Args:
        network: The network, in eval mode; it does not change.
        inputs: Example inputs of its forward: a tensor, a tuple, or a mapping of keywords.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Flatten(), nn.Linear(128, 2))
        >>> [(layer.inputs, layer.outputs) for layer in layers_of(net, torch.zeros(1, 3, 4, 4))]
        [(3, 8), (128, 2)]
    """
    found: list[Layer] = []

    def record(module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        value = args[0] if args else next(iter(kwargs.values()))
        found.append(_layer(module, value))

    handles = [
        module.register_forward_pre_hook(record, with_kwargs=True)
        for module in network.modules()
        if isinstance(module, (*CONVOLUTIONS, nn.Linear))
    ]
    try:
        args, kwargs = forward_arguments(inputs)
        with torch.no_grad():
            network(*args, **kwargs)
    finally:
        for handle in handles:
            handle.remove()
    return tuple(found)


def _layer(module: Any, value: Tensor) -> Layer:
    """Return the layer of a module that reads a value."""
    if isinstance(module, nn.Linear):
        rows = prod(value.shape[1:-1]) if value.dim() > 1 else 1
        return Layer(module.in_features, module.out_features, (rows,))
    rank = len(module.kernel_size)
    return Layer(
        inputs=module.in_channels,
        outputs=module.out_channels,
        space=tuple(value.shape[-rank:]),
        groups=module.groups,
        kernel=module.kernel_size,
        stride=module.stride,
        padding=_padding(module),
        dilation=module.dilation,
    )


def _padding(module: Any) -> tuple[int, ...]:
    """Return the padding of a convolution, at the beginning of each axis and then at the end."""
    if module.padding == "valid":
        return (0,) * (2 * len(module.kernel_size))
    if module.padding == "same":
        pairs = zip(module.kernel_size, module.dilation, strict=True)
        whole = [dilation * (size - 1) for size, dilation in pairs]
        return (*(size // 2 for size in whole), *(size - size // 2 for size in whole))
    return (*module.padding, *module.padding)
