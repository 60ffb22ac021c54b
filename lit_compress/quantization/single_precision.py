"""A network in another precision, computed in float32: quantisation knows no other."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map


class SinglePrecision(nn.Module):
    """A network whose weights were float64 or float16; it takes and returns this type as before.

    Args:
        network: The network; its weights become float32.

    Example:
        >>> network = SinglePrecision(nn.Linear(3, 2).double())
        >>> network(torch.zeros(1, 3, dtype=torch.float64)).dtype
        torch.float64
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.dtype = next(found for found in _types(network) if found != torch.float32)
        self.wrapped = network.float()

    def forward(self, *tensors: Tensor) -> Any:
        """Return the outputs for inputs of the original type."""
        inputs = [value.float() if value.is_floating_point() else value for value in tensors]
        return tree_map(self._original, self.wrapped(*inputs))

    def _original(self, value: Any) -> Any:
        floating = isinstance(value, Tensor) and value.is_floating_point()
        return value.to(self.dtype) if floating else value


def in_single_precision(network: nn.Module) -> nn.Module:
    """Return a network with weights in float32: itself, or wrapped.

    Args:
        network: The network; it may be changed.
    """
    return network if _types(network) <= {torch.float32} else SinglePrecision(network)


def _types(network: nn.Module) -> set[torch.dtype]:
    return {tensor.dtype for tensor in network.parameters() if tensor.is_floating_point()}
