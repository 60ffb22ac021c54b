"""Convert between the arguments of a forward call and a flat list of tensors.

The arguments may be one tensor, several tensors, or tensors inside tuples, lists and mappings.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from inspect import signature
from itertools import accumulate
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

#: Name of the input of a network that takes one tensor.
INPUT = "input"

#: One batch of inputs: one tensor, or several in order.
Batch = Tensor | tuple[Tensor, ...]


@dataclass(frozen=True)
class Signature:
    """The structure of the arguments of a call: where the tensors are, and all other values.

    Attributes:
        names: Names of the tensors: the name of the argument, then the keys that lead to the
            tensor, joined with ``_``.
        plain: Whether a single tensor is the only argument.

    Example:
        >>> import torch
        >>> class Net(torch.nn.Module):
        ...     def forward(self, batch, scale):
        ...         return batch["x"] * scale
        >>> x = torch.ones(2)
        >>> call = Signature.of(Net(), [{"x": x}], {"scale": 3.0})
        >>> call.names
        ('batch_x',)
        >>> call.call(Net(), [x])
        tensor([3., 3.])
    """

    names: tuple[str, ...]
    plain: bool
    _spec: TreeSpec
    #: For each leaf whether it is a tensor, and its value if it is not.
    _template: tuple[tuple[bool, Any], ...]

    @classmethod
    def of(cls, module: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Signature:
        """Return the signature of a call.

        Args:
            module: The called module, for the names of its arguments.
            args: Positional arguments.
            kwargs: Keyword arguments.

        Raises:
            ExportError: If there is no tensor among the arguments.
        """
        parameters = list(signature(module.forward).parameters)
        leaves, spec = tree_flatten_with_path((tuple(args), dict(kwargs)))
        paths = [path for path, leaf in leaves if isinstance(leaf, Tensor)]
        if not paths:
            got = ", ".join(type(value).__name__ for value in (*args, *kwargs.values()))
            raise ExportError(
                f"the forward of {type(module).__name__} must take tensors to be exported, got "
                f"{got or 'nothing'}: name a part that takes tensors by submodule"
            )
        plain = len(args) == 1 and not kwargs and isinstance(args[0], Tensor)
        names = [INPUT] if plain else [_name(path, parameters) for path in paths]
        template = tuple(
            (True, None) if isinstance(leaf, Tensor) else (False, leaf) for _, leaf in leaves
        )
        return cls(_distinct(names), plain, spec, template)

    def tensors(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Tensor, ...]:
        """Return the tensors of another call, in the order of ``names``.

        Args:
            args: Positional arguments.
            kwargs: Keyword arguments.

        Raises:
            ExportError: If the call has another signature.
        """
        leaves, spec = tree_flatten((tuple(args), dict(kwargs)))
        expected = [is_tensor for is_tensor, _ in self._template]
        if spec != self._spec or [isinstance(leaf, Tensor) for leaf in leaves] != expected:
            raise ExportError(
                "the network is called with other arguments than in the first batch "
                f"({', '.join(self.names)}), but an exported file takes the same arguments in "
                "every call: call the network in the same way for every batch"
            )
        return tuple(leaf for leaf in leaves if isinstance(leaf, Tensor))

    def call(self, module: nn.Module, tensors: Sequence[Tensor]) -> Any:
        """Call a module with these tensors, and with the other arguments of the first call.

        Args:
            module: The module to call.
            tensors: The tensors, in the order of ``names``.

        Returns:
            The result of the module.
        """
        values = iter(tensors)
        leaves = [next(values) if is_tensor else value for is_tensor, value in self._template]
        args, kwargs = tree_unflatten(leaves, self._spec)
        return module(*args, **kwargs)


class Flat(nn.Module):
    """A wrapper around a network that takes all tensors as positional arguments.

    Args:
        wrapped: The network.
        signature: Structure of the network's arguments.
    """

    def __init__(self, wrapped: nn.Module, signature: Signature) -> None:
        super().__init__()
        self.wrapped = wrapped
        self.signature = signature

    def forward(self, *tensors: Tensor) -> Any:
        """Call the network with the tensors, in the order of the signature's names."""
        return self.signature.call(self.wrapped, tensors)


def as_tuple(batch: Batch) -> tuple[Tensor, ...]:
    """Return the tensors of a batch as a tuple."""
    return (batch,) if isinstance(batch, Tensor) else tuple(batch)


def first_rows(batches: Sequence[tuple[Tensor, ...]], count: int) -> tuple[Tensor, ...]:
    """Return the first inputs of several batches as one batch.

    Args:
        batches: The batches, each a tuple of tensors.
        count: Number of inputs to return; fewer if the batches have fewer.

    Returns:
        One tensor for each tensor of a batch. A tensor without a batch axis is the one of the first
        batch.

    Example:
        >>> import torch
        >>> batches = [(torch.tensor([1, 2]),), (torch.tensor([3, 4]),)]
        >>> first_rows(batches, 3)
        (tensor([1, 2, 3]),)
    """
    length = len(batches[0][0])
    ends = list(accumulate(len(batch[0]) for batch in batches))
    few = next((i for i, end in enumerate(ends, 1) if end >= count), len(batches))
    columns = []
    for index, tensor in enumerate(batches[0]):
        if is_batched(tensor, length):
            columns.append(torch.cat([batch[index] for batch in batches[:few]])[:count])
        else:
            columns.append(tensor)
    return tuple(columns)


def is_batched(tensor: Tensor, length: int) -> bool:
    """Tell whether the first axis of a tensor can be the batch axis.

    Args:
        tensor: Any tensor.
        length: Length of the batch.
    """
    return tensor.dim() > 0 and len(tensor) == length


def _name(path: tuple[KeyEntry, ...], parameters: list[str]) -> str:
    """Return the name of a tensor from its path in (args, kwargs) and the parameter names."""
    keys: list[Any] = [getattr(entry, "key", getattr(entry, "idx", entry)) for entry in path]
    group, key, *rest = keys
    by_position = parameters[key] if not group and key < len(parameters) else f"input_{key}"
    first = str(key) if group else by_position
    return "_".join(re.sub(r"\W", "_", str(part)) for part in (first, *rest))


def _distinct(names: list[str]) -> tuple[str, ...]:
    """Append the index to every name that occurs more than once."""
    return tuple(
        name if names.count(name) == 1 else f"{name}_{index}" for index, name in enumerate(names)
    )
