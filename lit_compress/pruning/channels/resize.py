"""Resize a module's tensors to the shapes in a checkpoint, before the checkpoint is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from lit_compress.errors import CheckpointError, PlanError
from lit_compress.pruning.channels.graph import ChannelGraph
from lit_compress.pruning.channels.surgery import in_layout_of, set_widths, swap_data
from lit_compress.pruning.channels.trace import named_tensors

#: Key of :class:`UnprunedShapes` in the metadata of a safetensors file.
ORIGINAL = "lit_compress.original"

Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class UnprunedShapes:
    """Shapes of a network before it was pruned, stored together with its weights.

    Attributes:
        shapes: By tensor name, the unpruned shapes of the tensors that pruning can cut.
        norms: By name of a norm layer without parameters and buffers, its number of channels after
            pruning.
    """

    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    norms: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, graph: ChannelGraph, selected: frozenset[int]) -> UnprunedShapes:
        """Return the unpruned shapes of a network.

        Args:
            graph: Channels of the unpruned network.
            selected: Numbers of the channels that were removed.
        """
        norms = {
            name: sum(number not in selected for number in channels.tolist())
            for name, channels in graph.norms.items()
        }
        return cls(dict(graph.shapes), norms)

    def to_dict(self) -> dict[str, Any]:
        """Return the shapes as lists, numbers and text."""
        shapes = {name: list(shape) for name, shape in self.shapes.items()}
        return {"shapes": shapes, "norms": dict(self.norms)}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> UnprunedShapes:
        """Return the shapes that :meth:`to_dict` stored.

        Raises:
            PlanError: If the content is damaged.
        """
        try:
            return cls(
                {str(n): tuple(map(_size, shape)) for n, shape in content["shapes"].items()},
                {str(n): _size(width) for n, width in content["norms"].items()},
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise PlanError(
                "the unpruned shapes in the checkpoint are damaged "
                f"({type(error).__name__}: {error}): load another checkpoint"
            ) from error


def _size(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{value!r} is not a size")
    return value


def differing(module: nn.Module, state: Mapping[str, Any]) -> list[str]:
    """Return the names of a module's tensors whose shapes differ from a state dict, each once."""
    return [
        name
        for name, tensor in named_tensors(module).items()
        if isinstance(state.get(name), Tensor) and tensor.shape != state[name].shape
    ]


def resize_to(
    module: nn.Module, state: Mapping[str, Any], original: UnprunedShapes | None = None
) -> Shapes:
    """Resize a module's tensors to the shapes in a state dict; load the values afterwards.

    Parameters keep their identity, and module attributes such as ``out_channels`` are updated. An
    earlier, larger checkpoint makes the module grow.

    Args:
        module: The module; changed in place.
        state: The state dict.
        original: Unpruned shapes of the network. If given, only tensors that pruning can cut are
            resized. Default: unknown.

    Returns:
        By name, the former shapes of the tensors that changed.

    Raises:
        CheckpointError: If pruning cannot explain a difference; the module is unchanged then.
    """
    names = differing(module, state)
    own = named_tensors(module)
    convs = {id(layer.weight) for layer in module.modules() if isinstance(layer, _ConvNd)}
    for name in names:
        _check(name, own[name], state[name], original, id(own[name]) in convs)
    norms = original.norms if original else {}
    _check_norms(module, norms)
    before = {name: tuple(own[name].shape) for name in names}
    changed = set()
    for name in names:
        tensor = own[name]
        value = torch.zeros(state[name].shape, dtype=tensor.dtype, device=tensor.device)
        swap_data(tensor, in_layout_of(tensor, value))
        changed.add(id(tensor))
    set_widths(module, changed, norms)
    return before


def _check(
    name: str, own: Tensor, other: Tensor, original: UnprunedShapes | None, conv: bool
) -> None:
    here, there = tuple(own.shape), tuple(other.shape)
    remedy = "build the module with the arguments it was trained with"
    kernels = conv and here[2:] != there[2:]
    if len(here) != len(there) or kernels or not other.numel():
        raise CheckpointError(
            f"{name} is {there} in the checkpoint and {here} here, and removed channels cannot "
            f"explain the difference: {remedy}"
        )
    if original is None:
        return
    unpruned = original.shapes.get(name, ())
    if len(unpruned) != len(there) or _exceeds(there, unpruned):
        raise CheckpointError(
            f"{name} is {there} in the checkpoint and {here} here, and pruning did not cut it: "
            f"{remedy}"
        )
    if _exceeds(here, unpruned):
        raise CheckpointError(
            f"the checkpoint was pruned from a network whose {name} is {unpruned}, and here it is "
            f"{here}: {remedy}"
        )


def _check_norms(module: nn.Module, norms: Mapping[str, int]) -> None:
    layers = dict(module.named_modules())
    for name in norms:
        if not isinstance(layers.get(name), (_NormBase, nn.GroupNorm)):
            raise CheckpointError(
                f"the checkpoint was pruned from a network whose {name} is a norm layer, and here "
                "it is not: build the module with the arguments it was trained with"
            )


def _exceeds(shape: tuple[int, ...], limit: tuple[int, ...]) -> bool:
    return any(size > most for size, most in zip(shape, limit, strict=True))


def unpruned_shapes_of(checkpoint: Mapping[str, Any]) -> UnprunedShapes | None:
    """Return the unpruned shapes that a pruning callback stored in a checkpoint, or None.

    Raises:
        PlanError: If they are damaged.
    """
    states = checkpoint.get("callbacks")
    for state in states.values() if isinstance(states, dict) else ():
        if isinstance(state, dict) and state.get("original") is not None:
            return UnprunedShapes.from_dict(state["original"])
    return None


def check_full_size(module: nn.Module, original: UnprunedShapes) -> None:
    """Check that a newly built module has the unpruned shapes of a checkpoint.

    Raises:
        CheckpointError: If a shape differs, or a tensor is missing.
    """
    own = named_tensors(module)
    for name, shape in original.shapes.items():
        here = tuple(own[name].shape) if name in own else None
        if here != shape:
            raise CheckpointError(
                f"the checkpoint was pruned from a network whose {name} is {shape}, and here it is "
                f"{here or 'missing'}: build the module with the arguments it was trained with"
            )
