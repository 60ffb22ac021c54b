"""How a forward's arguments are made of tensors: one, several, or in tuples and mappings."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import (
    KeyEntry,
    TreeSpec,
    tree_flatten,
    tree_flatten_with_path,
    tree_unflatten,
)

from lit_compress.errors import ExportError

INPUT = "input"

#: What a network takes at a time: one tensor, or several in order.
Batch = Tensor | tuple[Tensor, ...]


@dataclass(frozen=True)
class Signature:
    """The tensors among the arguments of a call, and what is around them.

    Attributes:
        names: Of the tensors: that of the argument, and the keys that lead to it.
        plain: Whether the one tensor is the only argument.
    """

    names: tuple[str, ...]
    plain: bool
    _spec: TreeSpec
    _constants: tuple[Any, ...]

    @classmethod
    def of(cls, module: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Signature:
        """Return the signature of a call.

        Raises:
            ExportError: If there is no tensor among the arguments.
        """
        parameters = list(signature(module.forward).parameters)
        leaves, spec = tree_flatten_with_path((tuple(args), dict(kwargs)))
        found = [(path, leaf) for path, leaf in leaves if isinstance(leaf, Tensor)]
        if not found:
            got = ", ".join(type(value).__name__ for value in (*args, *kwargs.values()))
            raise ExportError(
                f"the forward of {type(module).__name__} must take tensors to be exported, got "
                f"{got or 'nothing'}: name a part that does by submodule"
            )
        plain = len(args) == 1 and not kwargs and isinstance(args[0], Tensor)
        names = [INPUT] if plain else [_name(path, parameters) for path, _ in found]
        constants = tuple(None if isinstance(leaf, Tensor) else leaf for _, leaf in leaves)
        places = tuple(isinstance(leaf, Tensor) for _, leaf in leaves)
        return cls(_distinct(names), plain, spec, tuple(zip(places, constants, strict=True)))

    def tensors(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Tensor, ...]:
        """Return the tensors of another call.

        Raises:
            ExportError: If it is of another signature.
        """
        leaves, spec = tree_flatten((tuple(args), dict(kwargs)))
        places = [is_tensor for is_tensor, _ in self._constants]
        if spec != self._spec or [isinstance(leaf, Tensor) for leaf in leaves] != places:
            raise ExportError(
                "the network is called with other arguments than in the first batch "
                f"({', '.join(self.names)}): an exported file takes the same ones always"
            )
        return tuple(leaf for leaf in leaves if isinstance(leaf, Tensor))

    def call(self, module: nn.Module, tensors: Sequence[Tensor]) -> Any:
        """Call a module with these tensors in their places."""
        given = iter(tensors)
        leaves = [next(given) if is_tensor else value for is_tensor, value in self._constants]
        args, kwargs = tree_unflatten(leaves, self._spec)
        return module(*args, **kwargs)


class Flat(nn.Module):
    """A network that takes its tensors one after the other.

    Args:
        wrapped: The network.
        signature: Where it takes them.
    """

    def __init__(self, wrapped: nn.Module, signature: Signature) -> None:
        super().__init__()
        self.wrapped = wrapped
        self.signature = signature

    def forward(self, *tensors: Tensor) -> Any:
        """Return what the network makes of them."""
        return self.signature.call(self.wrapped, tensors)


def as_tuple(batch: Batch) -> tuple[Tensor, ...]:
    """Return the tensors of a batch, of which there is mostly one."""
    return (batch,) if isinstance(batch, Tensor) else tuple(batch)


def first_rows(batches: Sequence[tuple[Tensor, ...]], count: int) -> tuple[Tensor, ...]:
    """Return the first inputs of some batches; tensors that are not of the batch come once."""
    length = len(batches[0][0])
    columns = []
    for place, tensor in enumerate(batches[0]):
        if is_batched(tensor, length):
            columns.append(torch.cat([batch[place] for batch in batches])[:count])
        else:
            columns.append(tensor)
    return tuple(columns)


def is_batched(tensor: Tensor, length: int) -> bool:
    """Tell whether the first axis of a tensor is that of a batch of this length."""
    return tensor.dim() > 0 and len(tensor) == length


def _name(path: tuple[KeyEntry, ...], parameters: list[str]) -> str:
    keys: list[Any] = [getattr(entry, "key", getattr(entry, "idx", entry)) for entry in path]
    group, key, *rest = keys
    by_position = parameters[key] if not group and key < len(parameters) else f"input_{key}"
    first = str(key) if group else by_position
    return "_".join(re.sub(r"\W", "_", str(part)) for part in (first, *rest))


def _distinct(names: list[str]) -> tuple[str, ...]:
    return tuple(
        name if names.count(name) == 1 else f"{name}_{index}" for index, name in enumerate(names)
    )
