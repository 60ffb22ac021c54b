"""Parts of a graph that are on or off as the modules are that they come from."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class Switch(nn.Module):
    """A part of a graph that is in training mode if the module is that it comes from.

    Args:
        path: Name of that module in the network.

    Example:
        >>> switch, network = Switch("1"), nn.Sequential(nn.Linear(2, 2), nn.Dropout()).train()
        >>> switch.follow(network)
        >>> switch.training
        True
    """

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path

    def follow(self, network: nn.Module | None) -> None:
        """Take on the mode of the module; without a network it is eval mode.

        Args:
            network: The network.
        """
        part = None if network is None else self.part(network)
        self.train(part is not None and part.training)

    def part(self, network: nn.Module) -> nn.Module:
        """Return the module that it comes from, or the network if that has no such part.

        Args:
            network: The network.
        """
        try:
            return network.get_submodule(self.path)
        except AttributeError:
            return network


class Dropout(Switch):
    """A dropout.

    Args:
        path: Name of the module that it comes from.
        dropout: Does the same.
    """

    def __init__(self, path: str, dropout: nn.Module) -> None:
        super().__init__(path)
        self.dropout = dropout

    def forward(self, value: Tensor) -> Any:
        """Return the value, a part of it dropped in training mode."""
        return self.dropout(value)


class Norm(Switch):
    """A batch norm: in training mode with the statistics of the batch, which its own follow.

    Args:
        path: Name of the module that it comes from.
        momentum: How fast its statistics follow.
        epsilon: What it adds to the variance.
    """

    def __init__(self, path: str, momentum: float, epsilon: float) -> None:
        super().__init__(path)
        self.momentum = momentum
        self.epsilon = epsilon

    def follow(self, network: nn.Module | None) -> None:
        """Take on the mode of the module, and count the batch as its norm does."""
        super().follow(network)
        norm = None if network is None else self.part(network)
        if not self.training or not isinstance(norm, _BatchNorm):
            return
        if norm.num_batches_tracked is not None:
            norm.num_batches_tracked.add_(1)
            if norm.momentum is None:  # the mean of all batches
                self.momentum = 1.0 / float(norm.num_batches_tracked)

    def forward(
        self,
        value: Tensor,
        mean: Tensor,
        variance: Tensor,
        scale: Tensor | None,
        shift: Tensor | None,
    ) -> Tensor:
        """Return the normalised value."""
        return nn.functional.batch_norm(
            value, mean, variance, scale, shift, self.training, self.momentum, self.epsilon
        )
