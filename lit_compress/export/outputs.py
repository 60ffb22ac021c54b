"""Convert between what a forward returns and a flat list of tensors.

A network may return one tensor, or several in tuples, lists, mappings and dataclasses, such as the
outputs of torchvision's segmentation networks and of Hugging Face's models.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from lit_compress.errors import ExportError

#: Name of the output of a network that returns one tensor.
OUTPUT = "output"


@dataclass(frozen=True)
class Outputs:
    """The structure of what a forward returns: where the tensors are, and all other values.

    Attributes:
        names: Names of the tensors, in the order of the structure: the keys, fields or positions
            that lead to the tensor, joined with ``_``; ``output`` and the position where they
            begin with a position.
        plain: Whether a single tensor is all that is returned.

    Example:
        >>> import torch
        >>> result = {"out": torch.ones(2), "features": [torch.zeros(2), None]}
        >>> outputs = Outputs.of(result)
        >>> outputs.names
        ('out', 'features_0')
        >>> outputs.structured([torch.zeros(3), torch.ones(3)])
        {'out': tensor([0., 0., 0.]), 'features': [tensor([1., 1., 1.]), None]}
    """

    names: tuple[str, ...]
    plain: bool
    _template: Any

    @classmethod
    def of(cls, result: Any, network: object = None) -> Outputs:
        """Return the structure of a result.

        Args:
            result: What a forward returned.
            network: The network, to name it in messages.

        Raises:
            ExportError: If the result has no tensor, or a tensor is inside an object of another
                kind.
        """
        leaves = list(_leaves(result, ()))
        if any(tensor.is_complex() for _, tensor in leaves):
            raise ExportError(
                f"the forward of {type(network).__name__} returns complex numbers, which ONNX has "
                "not: return their real and imaginary parts"
            )
        paths = [path for path, _ in leaves]
        if not paths:
            raise ExportError(
                f"the forward of {type(network).__name__} must return tensors to be exported, but "
                f"returns {_kind(result)}: return tensors, in tuples, lists, mappings or "
                "dataclasses, or name a part that does by submodule"
            )
        plain = isinstance(result, Tensor)
        names = [OUTPUT] if plain else [_name(path) for path in paths]
        empty = iter([None] * len(paths))
        return cls(_distinct(names), plain, _rebuilt(result, empty))

    def distinct_from(self, taken: Collection[str]) -> Outputs:
        """Return the structure with other names for outputs that are called as an input is.

        Args:
            taken: Names of the inputs.
        """
        names = tuple(f"{name}_{OUTPUT}" if name in taken else name for name in self.names)
        return replace(self, names=names)

    def tensors(self, result: Any) -> tuple[Tensor, ...]:
        """Return the tensors of another result, in the order of ``names``.

        Args:
            result: What the forward returned.

        Raises:
            ExportError: If the result has another structure.
        """
        found = list(_leaves(result, ()))
        if self.plain != isinstance(result, Tensor) or len(found) != len(self.names):
            raise ExportError(
                f"the network returns {len(found)} tensors, and in the first batch it returned "
                f"{len(self.names)} ({', '.join(self.names)}), but a file has the same outputs in "
                "every call: let it return the same for every batch"
            )
        return tuple(tensor for _, tensor in found)

    def structured(self, tensors: Sequence[Tensor]) -> Any:
        """Return tensors as the forward returns them.

        Args:
            tensors: The tensors, in the order of ``names``.
        """
        if self.plain:
            return tensors[0]
        return _rebuilt(self._template, iter(tensors), holes=True)


class FlatOutputs(nn.Module):
    """A wrapper around a network that returns all its tensors as a tuple.

    Args:
        wrapped: The network.
        outputs: Structure of what it returns.
    """

    def __init__(self, wrapped: nn.Module, outputs: Outputs) -> None:
        super().__init__()
        self.wrapped = wrapped
        self.outputs = outputs

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Return the tensors of the network's result."""
        found = self.outputs.tensors(self.wrapped(*tensors))
        # A tensor that is returned twice is one output of a graph, and two of a file.
        seen: list[Tensor] = []
        for tensor in found:
            seen.append(tensor.clone() if any(tensor is one for one in seen) else tensor)
        return tuple(seen)


class _Hole:
    """The place of a tensor in a template."""


_HOLE = _Hole()


def _children(value: Any) -> list[tuple[Any, Any]] | None:
    """Return the values inside a container by key, field or position; None if it is none."""
    if isinstance(value, Mapping):
        return list(value.items())
    if isinstance(value, (tuple, list)):
        keys = getattr(value, "_fields", range(len(value)))
        return list(zip(keys, value, strict=True))
    if is_dataclass(value) and not isinstance(value, type):
        return [(field.name, getattr(value, field.name)) for field in fields(value)]
    return None


def _leaves(value: Any, path: tuple[Any, ...]) -> Iterator[tuple[tuple[Any, ...], Tensor]]:
    """Yield the tensors in a result with the keys that lead to them."""
    if isinstance(value, Tensor):
        yield path, value
        return
    for key, child in _children(value) or ():
        yield from _leaves(child, (*path, key))


def _rebuilt(value: Any, tensors: Iterator[Any], holes: bool = False) -> Any:
    """Return a copy of a result with other tensors; without ``holes``, with holes in their place.

    Args:
        value: A result, or a template of one.
        tensors: What is put in the place of the tensors; None is a hole.
        holes: Whether the value is a template, whose holes are filled.
    """
    if isinstance(value, _Hole) if holes else isinstance(value, Tensor):
        tensor = next(tensors)
        return _HOLE if tensor is None else tensor
    children = _children(value)
    if children is None:
        return value
    new = {key: _rebuilt(child, tensors, holes) for key, child in children}
    if isinstance(value, Mapping):
        return _mapping(value, new)
    if isinstance(value, (tuple, list)):
        kind = type(value)
        return kind(*new.values()) if hasattr(value, "_fields") else kind(new.values())
    same = copy.copy(value)  # fields may be set by its own constructor alone
    for name, child in new.items():
        object.__setattr__(same, name, child)
    return same


def _mapping(value: Mapping[Any, Any], new: dict[Any, Any]) -> Any:
    """Return a mapping of the same type with other values."""
    kind: Any = type(value)
    if hasattr(kind, "__dataclass_fields__"):  # the outputs of Hugging Face's models
        return kind(**new)
    if kind is dict:
        return new
    same: Any = copy.copy(value)
    for key, child in new.items():
        same[key] = child
    return same


def _kind(result: Any) -> str:
    if isinstance(result, (tuple, list, Mapping)) and not result:
        return f"an empty {type(result).__name__}"
    return f"a {type(result).__name__} without tensors"


def _name(path: tuple[Any, ...]) -> str:
    """Return the name of an output from the keys that lead to it."""
    first = f"{OUTPUT}_{path[0]}" if isinstance(path[0], int) else str(path[0]) or OUTPUT
    return "_".join(re.sub(r"\W", "_", str(part)) for part in (first, *path[1:]))


def _distinct(names: list[str]) -> tuple[str, ...]:
    """Append the position to every name that occurs more than once."""
    return tuple(
        name if names.count(name) == 1 else f"{name}_{index}" for index, name in enumerate(names)
    )


def as_tensors(result: Any) -> tuple[Tensor, ...]:
    """Return what a captured graph returns as a tuple of tensors.

    Example:
        >>> import torch
        >>> len(as_tensors(torch.ones(2))), len(as_tensors((torch.ones(2), torch.zeros(3))))
        (1, 2)
    """
    return (result,) if isinstance(result, Tensor) else tuple(tree_leaves(result))
