"""Element-wise masks with exact counts, and their packed form for checkpoints."""

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
    """Return the decimal that was written, as a fraction: 0.07 is exactly 7/100.

    Raises:
        InvalidArgumentError: If the value is not a number in [0, 1).
    """
    if isinstance(value, bool) or not isinstance(value, (int, float, Fraction)):
        raise InvalidArgumentError(f"target must be a number in [0, 1), got {value!r}")
    if not 0 <= value < 1:  # also refuses NaN
        raise InvalidArgumentError(
            f"target must be in [0, 1), the share to remove (0.8 removes 80 %), got {value!r}"
        )
    return value if isinstance(value, Fraction) else Fraction(repr(float(value)))


def pruned_count(total: int, share: Fraction) -> int:
    """Return how many of ``total`` weights to prune: ``ceil(total * share)``, without float error.

    Args:
        total: Number of weights.
        share: Share to prune, in [0, 1].

    Example:
        >>> from fractions import Fraction
        >>> pruned_count(100, Fraction(7, 100))  # 100 * 0.07 is 7.000000000000001 as a float
        7
    """
    return ceil(total * share)


def magnitude_masks(
    weights: Mapping[str, Tensor],
    share: float | Fraction,
    scope: Scope = "global",
    previous: Mapping[str, Tensor] | None = None,
) -> Masks:
    """Return boolean masks (True: kept) that prune the weights of smallest magnitude.

    Exactly ``ceil(n * share)`` weights are pruned, where ``n`` counts all weights together
    (``global``) or those of each tensor (``local``). Of equal magnitudes, the lowest index is
    pruned first. Weights that ``previous`` prunes stay pruned. The method is magnitude pruning
    (Han et al. 2015, arXiv 1506.02626).

    Args:
        weights: Tensors by name, of any shape and memory format.
        share: Share to prune, in [0, 1).
        scope: ``global`` ranks all weights together, ``local`` each tensor on its own.
        previous: Masks of the pruning step before, by the same names. Default: nothing is pruned.

    Returns:
        One mask for each tensor, of the same name and shape, on the CPU.

    Raises:
        InvalidArgumentError: If ``share`` or ``scope`` is not one of the above.
        PatternError: If a weight is NaN.

    Example:
        >>> magnitude_masks({"weight": torch.tensor([3.0, -1.0, 2.0, 0.5])}, share=0.5)
        {'weight': tensor([ True, False,  True, False])}
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
    """Return, by name, False for the ``ceil(n * share)`` smallest scores and True for the others.

    Args:
        scores: Vectors of scores; of equal scores, the lowest index is pruned first.
        share: Share to prune, in [0, 1].
        scope: ``global`` ranks all vectors together, ``local`` each on its own.
    """
    groups = [list(scores)] if scope == "global" else [[name] for name in scores]
    kept: dict[str, np.ndarray] = {}
    for names in groups if scores else ():
        joined = np.concatenate([scores[name] for name in names])
        flags = _flag_largest(joined, pruned_count(joined.size, share))
        bounds = np.cumsum([scores[name].size for name in names])[:-1]
        parts = np.split(flags, bounds)
        kept.update((name, part.copy()) for name, part in zip(names, parts, strict=True))
    return kept


def magnitudes(name: str, weight: Tensor) -> np.ndarray:
    """Return the magnitudes of a weight's elements as a vector, in single precision or better.

    Raises:
        PatternError: If an element is NaN.
    """
    flat = weight.detach().abs().to("cpu", torch.promote_types(weight.dtype, torch.float32))
    scores: np.ndarray = flat.reshape(-1).numpy()
    if np.isnan(scores).any():
        raise PatternError(
            f"{name} holds NaN, so its weights cannot be ranked: the training has diverged "
            "(lower the learning rate, or start again from a checkpoint without NaN)"
        )
    return scores


def _flag_largest(scores: np.ndarray, drop: int) -> np.ndarray:
    """Return False for the ``drop`` smallest scores; of equal scores, for the lowest indices."""
    if drop == 0:
        return np.ones(scores.size, dtype=bool)
    threshold = np.partition(scores, drop - 1)[drop - 1]
    kept: np.ndarray = scores >= threshold
    ties = np.flatnonzero(scores == threshold)
    kept[ties[: drop - int((~kept).sum())]] = False
    return kept


def pack(mask: Tensor) -> Tensor:
    """Pack a boolean mask into bits, eight elements in each byte, for a checkpoint.

    Args:
        mask: Boolean tensor of any shape, on any device.

    Returns:
        A uint8 vector of ``ceil(mask.numel() / 8)`` bytes, on the CPU.

    Example:
        >>> pack(torch.tensor([[True, False], [True, True]]))
        tensor([176], dtype=torch.uint8)
    """
    return torch.from_numpy(np.packbits(mask.reshape(-1).cpu().numpy()))


def unpack(packed: Tensor, shape: tuple[int, ...] | torch.Size) -> Tensor:
    """Return the boolean mask that :func:`pack` packed.

    Args:
        packed: uint8 vector, as :func:`pack` returns it.
        shape: Shape of the mask.

    Raises:
        InvalidArgumentError: If it is no tensor, or the number of bytes does not match the shape.

    Example:
        >>> unpack(torch.tensor([176], dtype=torch.uint8), (2, 2))
        tensor([[ True, False],
                [ True,  True]])
    """
    count = int(np.prod(shape))
    if not isinstance(packed, Tensor):
        raise InvalidArgumentError(f"a packed mask should be a tensor, and is {packed!r:.60}")
    if packed.dtype != torch.uint8 or packed.numel() != (count + 7) // 8:
        raise InvalidArgumentError(
            f"a packed mask of {packed.numel()} bytes does not fit a weight of shape "
            f"{tuple(shape)}: the checkpoint comes from another architecture"
        )
    bits = np.unpackbits(packed.cpu().numpy(), count=count).astype(bool)
    return torch.from_numpy(bits).view(tuple(shape))


def sparsity(masks: Mapping[str, Tensor]) -> float:
    """Return the share of weights that masks prune, in [0, 1]; 0 if there are no masks.

    Args:
        masks: Boolean masks (True: kept) by name.

    Example:
        >>> sparsity({"weight": torch.tensor([True, False, True, True])})
        0.25
    """
    total = sum(mask.numel() for mask in masks.values())
    kept = sum(int(mask.sum()) for mask in masks.values())
    return 1 - kept / total if total else 0.0
