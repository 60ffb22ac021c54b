"""The weights of a module, sent from one process of a run to the others."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from lit_compress.errors import ProcessError
from lit_compress.pruning.channels.resize import resize_to


@dataclass(frozen=True)
class Weights:
    """The weights and buffers of a module.

    Attributes:
        tensors: The tensors by name, on the CPU.
        left_out: Beginning of the names of those that are not sent; None if all are.
    """

    tensors: dict[str, Tensor]
    left_out: str | None

    @classmethod
    def of(cls, module: nn.Module, left_out: str | None = None) -> Weights:
        """Return the weights of a module.

        Args:
            module: The module.
            left_out: Beginning of the names of tensors that are not needed. Default: all are.
        """
        own = _state(module, left_out)
        return cls({name: value.cpu() for name, value in own.items()}, left_out)

    def give_to(self, module: nn.Module) -> None:
        """Give a module these weights, and their shapes.

        Args:
            module: The same module in another process.

        Raises:
            ProcessError: If it has other parts.
        """
        rest = {} if self.left_out is None else module.state_dict()
        resize_to(module, {**rest, **self.tensors})
        own = _state(module, self.left_out)
        if other := own.keys() ^ self.tensors.keys():
            raise ProcessError(f"the network of the first process has other parts: {min(other)}")
        for name, value in own.items():
            value.copy_(self.tensors[name])


def _state(module: nn.Module, left_out: str | None) -> dict[str, Tensor]:
    return {
        name: value
        for name, value in module.state_dict().items()
        if isinstance(value, Tensor) and not (left_out and name.startswith(left_out))
    }
