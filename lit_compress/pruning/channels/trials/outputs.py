"""The outputs of runs, and whether those of two networks agree."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

Run = Callable[[], Any]

#: Largest relative difference between the two networks, by type.
TOLERANCE = {torch.float64: 1e-6, torch.float16: 5e-2, torch.bfloat16: 1e-1}
#: Largest relative difference in single precision; a GPU may round to ten bits (TF32).
ON_CPU, ON_GPU = 1e-4, 1e-3


def outputs_of(run: Run) -> list[Tensor]:
    """Return the tensors that a run returns."""
    result = run()
    with torch._C.DisableTorchFunction():  # this is not a call of the model
        return [tensor.detach() for tensor in tensors_in(result)]


def agree(expected: list[Tensor], actual: list[Tensor]) -> bool:
    """Tell whether the outputs of two networks are equal up to rounding."""
    if len(expected) != len(actual):
        return False
    return all(close(one, other) for one, other in zip(expected, actual, strict=True))


def comparable(outputs: list[Tensor]) -> bool:
    """Tell whether there are outputs, and each has a finite value."""
    return bool(outputs) and all(
        bool(tensor.isfinite().any()) for tensor in outputs if tensor.numel()
    )


def close(expected: Tensor, actual: Tensor) -> bool:
    """Tell whether two tensors are equal up to rounding."""
    if expected.shape != actual.shape:
        return False
    if not expected.is_floating_point() and not expected.is_complex():
        # Integers may be indices (argmax, sort), and some differ where values are almost equal.
        return not expected.numel() or (expected != actual).double().mean().item() <= 0.5
    finite = expected.isfinite()
    if not torch.equal(finite, actual.isfinite()):
        return False
    scale = expected[finite].abs().max().item() if finite.any() else 0.0
    difference = (expected - actual)[finite].abs().max().item() if finite.any() else 0.0
    single = ON_CPU if expected.device.type == "cpu" else ON_GPU
    return difference <= TOLERANCE.get(expected.dtype, single) * scale


def tensors_in(value: Any, depth: int = 3) -> list[Tensor]:
    """Return the tensors in nested containers, dataclasses and plain objects.

    Args:
        value: Any value.
        depth: Number of levels of plain objects to look into.
    """
    tensors: list[Tensor] = []
    for leaf in tree_leaves(value):
        if isinstance(leaf, Tensor):
            tensors.append(leaf)
        elif depth and not isinstance(leaf, (nn.Module, type)):
            names = {*getattr(leaf, "__dict__", ()), *getattr(type(leaf), "__slots__", ())}
            attributes = {name: getattr(leaf, name, None) for name in sorted(names)}
            tensors += tensors_in(attributes, depth - 1) if attributes else []
    return tensors
