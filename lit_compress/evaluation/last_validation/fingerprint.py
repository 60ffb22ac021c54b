"""A hash of what a module computes with, which tells whether it has changed."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor, nn


def fingerprint(module: nn.Module) -> bytes | None:
    """Return a hash of a module: of its parameters and buffers, and of the numbers it holds.

    Versions of tensors do not tell whether their values have changed: an assignment to ``.data``
    does not count. Tensors are hashed in single precision, so that a copy in it has the same hash.
    Numbers, such as the rate of a dropout, are those in public attributes.

    Args:
        module: The module, on any device.

    Returns:
        The hash; None if a tensor is not a plain one in memory, such as a sparse one.

    Example:
        >>> layer = nn.Linear(2, 2)
        >>> before = fingerprint(layer)
        >>> layer.weight.data[0, 0] += 1
        >>> fingerprint(layer) == before
        False
    """
    digest = hashlib.sha256(usedforsecurity=False)
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        if type(tensor) not in (Tensor, nn.Parameter) or tensor.layout is not torch.strided:
            return None
        value = tensor.detach()
        value = (value.float() if value.is_floating_point() else value).cpu().contiguous()
        digest.update(f"{name} {tuple(value.shape)}".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    for name, child in module.named_modules():
        digest.update(f"{name} {_numbers(child)}".encode())
    return digest.digest()


def _numbers(module: nn.Module) -> list[tuple[str, object]]:
    """Return the plain values in attributes of a module; whether it trains is not one of them."""
    return sorted(
        (name, value)
        for name, value in vars(module).items()
        if isinstance(value, (bool, int, float, str)) and not name.startswith("_")
        if name != "training"
    )
