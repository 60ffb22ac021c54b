"""Spectral norms after a cut: their estimate of the largest singular value is of the old weight."""

from __future__ import annotations

from collections.abc import Container, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import _SpectralNorm
from torch.nn.utils.spectral_norm import SpectralNorm

#: Steps of the power iteration; a cut weight may be far from the old vectors.
STEPS = 50


@torch.no_grad()
def settle_spectral_norms(module: nn.Module, changed: Container[int]) -> None:
    """Estimate the singular vectors of spectral norms again, in place.

    Args:
        module: The module, whose weights were cut.
        changed: ``id`` of the tensors that changed.
    """
    for weight, first, second in _estimates(module):
        if id(first) in changed or id(second) in changed:
            for _ in range(STEPS):
                second.copy_(F.normalize(torch.mv(weight.t(), first), dim=0))
                first.copy_(F.normalize(torch.mv(weight, second), dim=0))


def _estimates(module: nn.Module) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield the weight of each spectral norm as a matrix, and its two singular vectors."""
    for layer in module.modules():
        behind = layer._modules.get("parametrizations")
        for parts in behind.children() if behind is not None else ():
            for part in parts.children():
                if isinstance(part, _SpectralNorm) and hasattr(part, "_u"):
                    weight: Tensor = parts.original  # type: ignore[assignment]
                    yield weight.movedim(part.dim, 0).flatten(1), part._u, part._v
        for hook in layer._forward_pre_hooks.values():
            if isinstance(hook, SpectralNorm):
                tensors = {**layer._parameters, **layer._buffers}
                found = [tensors[f"{hook.name}_{end}"] for end in ("orig", "u", "v")]
                weight, first, second = (tensor for tensor in found if tensor is not None)
                yield weight.movedim(hook.dim, 0).flatten(1), first, second
