"""Resize a module's tensors to the shapes in a checkpoint, before the checkpoint is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from lit_compress.errors import CheckpointError
from lit_compress.pruning.blocks.surgery import put_back, take_blocks_of
from lit_compress.pruning.channels.surgery import in_layout_of, swap_data
from lit_compress.pruning.channels.tracing.modules import named_tensors
from lit_compress.pruning.channels.unpruned import (
    ORIGINAL,
    UnprunedShapes,
    carry,
    unpruned_shapes_of,
)
from lit_compress.pruning.channels.widths import named_width, set_widths

__all__ = [
    "ORIGINAL",
    "Shapes",
    "UnprunedShapes",
    "check_full_size",
    "differing",
    "resize_to",
    "unpruned_shapes_of",
]

Shapes = dict[str, tuple[int, ...]]


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
    """Give a module the blocks and the shapes of a state dict; load the values afterwards.

    Parameters keep their identity, and module attributes such as ``out_channels`` are updated. An
    earlier, larger checkpoint makes the module grow.

    Args:
        module: The module; changed in place.
        state: The state dict.
        original: Unpruned shapes of the network, which the module then carries along. If given,
            only tensors that pruning can cut are resized. Default: unknown.

    Returns:
        By name, the former shapes of the tensors that changed.

    Raises:
        CheckpointError: If pruning cannot explain a difference; the module is unchanged then.
    """
    parts = take_blocks_of(module, state, original.blocks if original else None)
    names = differing(module, state)
    own = named_tensors(module)
    convs = {id(layer.weight) for layer in module.modules() if isinstance(layer, _ConvNd)}
    widths = original.widths if original else {}
    try:
        for name in names:
            _check(name, own[name], state[name], original, id(own[name]) in convs)
        _check_widths(module, widths)
    except CheckpointError:
        put_back(module, parts)
        raise
    before = {name: tuple(own[name].shape) for name in names}
    changed = set()
    for name in names:
        tensor = own[name]
        value = torch.zeros(state[name].shape, dtype=tensor.dtype, device=tensor.device)
        swap_data(tensor, in_layout_of(tensor, value))
        changed.add(id(tensor))
    set_widths(module, changed, widths)
    if original is not None:
        carry(module, original)
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


def _check_widths(module: nn.Module, widths: Mapping[str, int]) -> None:
    for name in widths:
        if named_width(module, name) is None:
            raise CheckpointError(
                f"the checkpoint was pruned from a network in which {name} states a width, and "
                "here it does not: build the module with the arguments it was trained with"
            )


def _exceeds(shape: tuple[int, ...], limit: tuple[int, ...]) -> bool:
    return any(size > most for size, most in zip(shape, limit, strict=True))


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
