"""Element-wise masks with exact counts: which weights are kept, and their packed form."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from math import ceil
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from lit_compress.errors import InvalidArgumentError, PatternError

Scope = Literal["global", "local"]
Masks = dict[str, Tensor]


def exact_share(value: float | Fraction) -> Fraction:
    """Return a share as the decimal that was written: 0.07 is 7/100, not its binary neighbour.

    Raises:
        InvalidArgumentError: If it is not a number in [0, 1).
    """
    if isinstance(value, bool) or not isinstance(value, (int, float, Fraction)):
        raise InvalidArgumentError(f"target must be a number in [0, 1), got {value!r}")
    if not 0 <= value < 1:  # also refuses NaN
        raise InvalidArgumentError(
            f"target must be in [0, 1), the share to remove (0.8 removes 80 %), got {value!r}"
        )
    return value if isinstance(value, Fraction) else Fraction(repr(float(value)))


def pruned_count(total: int, share: Fraction) -> int:
    """Return how many of ``total`` weights go: ``ceil(total * share)``, without rounding error."""
    return ceil(total * share)


def magnitude_masks(
    weights: Mapping[str, Tensor],
    share: float | Fraction,
    scope: Scope = "global",
    previous: Mapping[str, Tensor] | None = None,
) -> Masks:
    """Return boolean masks (True: kept) that drop the weights of smallest magnitude.

    Exactly ``ceil(n * share)`` weights go, of all together (``global``) or of each tensor
    (``local``); equal magnitudes go in index order. Weights already dropped stay dropped.

    Args:
        weights: Tensors by name, any shape and memory format.
        share: Share to drop, in [0, 1).
        scope: Rank all weights together, or each tensor alone.
        previous: Masks of an earlier event, by the same names.

    Returns:
        One mask a tensor, of its shape, on the CPU.

    Raises:
        InvalidArgumentError: If ``share`` or ``scope`` is not one of the above.
        PatternError: If a weight is NaN.
    """
    if scope not in ("global", "local"):
        raise InvalidArgumentError(f"scope must be 'global' or 'local', got {scope!r}")
    share = exact_share(share)
    scores = {name: magnitudes(name, weight) for name, weight in weights.items()}
    for name, mask in (previous or {}).items():
        if name in scores:
            scores[name] = np.where(mask.reshape(-1).cpu().numpy(), scores[name], -1)
    kept = keep_largest(scores, share, scope)
    return {name: torch.from_numpy(part).view(weights[name].shape) for name, part in kept.items()}


def keep_largest(
    scores: Mapping[str, np.ndarray], share: Fraction, scope: Scope
) -> dict[str, np.ndarray]:
    """Return, by name, True for all but ``ceil(n * share)`` of the scores, the smallest.

    Args:
        scores: Vectors of scores; equal ones go in index order.
        share: Share that goes, in [0, 1].
        scope: Rank all vectors together (``global``), or each alone.
    """
    groups = [list(scores)] if scope == "global" else [[name] for name in scores]
    kept: dict[str, np.ndarray] = {}
    for names in groups if scores else ():
        joined = np.concatenate([scores[name] for name in names])
        flags = _keep_largest(joined, pruned_count(joined.size, share))
        bounds = np.cumsum([scores[name].size for name in names])[:-1]
        parts = np.split(flags, bounds)
        kept.update((name, part.copy()) for name, part in zip(names, parts, strict=True))
    return kept


def magnitudes(name: str, weight: Tensor) -> np.ndarray:
    """Return the magnitudes of a weight's elements as a vector.

    Raises:
        PatternError: If one is NaN.
    """
    flat = weight.detach().abs().to("cpu", torch.promote_types(weight.dtype, torch.float32))
    scores: np.ndarray = flat.reshape(-1).numpy()
    if np.isnan(scores).any():
        raise PatternError(
            f"{name} holds NaN, so its weights cannot be ranked: the training has diverged "
            "(lower the learning rate, or start again from a sound checkpoint)"
        )
    return scores


def _keep_largest(scores: np.ndarray, drop: int) -> np.ndarray:
    """Return True for all but the ``drop`` smallest scores, ties dropped in index order."""
    if drop == 0:
        return np.ones(scores.size, dtype=bool)
    threshold = np.partition(scores, drop - 1)[drop - 1]
    kept: np.ndarray = scores >= threshold
    ties = np.flatnonzero(scores == threshold)
    kept[ties[: drop - int((~kept).sum())]] = False
    return kept


def pack(mask: Tensor) -> Tensor:
    """Return a boolean mask as a uint8 tensor of 8 elements a byte, for a checkpoint."""
    return torch.from_numpy(np.packbits(mask.reshape(-1).cpu().numpy()))


def unpack(packed: Tensor, shape: tuple[int, ...] | torch.Size) -> Tensor:
    """Return the boolean mask of ``shape`` that :func:`pack` made.

    Raises:
        InvalidArgumentError: If the packed bits do not fit the shape.
    """
    count = int(np.prod(shape))
    if packed.dtype != torch.uint8 or packed.numel() != (count + 7) // 8:
        raise InvalidArgumentError(
            f"a packed mask of {packed.numel()} bytes does not fit a weight of shape "
            f"{tuple(shape)}: the checkpoint is of another architecture"
        )
    bits = np.unpackbits(packed.cpu().numpy(), count=count).astype(bool)
    return torch.from_numpy(bits).view(tuple(shape))


def sparsity(masks: Mapping[str, Tensor]) -> float:
    """Return the share of weights that the masks drop, of all they cover."""
    total = sum(mask.numel() for mask in masks.values())
    kept = sum(int(mask.sum()) for mask in masks.values())
    return 1 - kept / total if total else 0.0
