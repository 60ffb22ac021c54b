"""Changes of shape: a channel dimension may be split into parts, of which one may shrink."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from lit_compress.pruning.channels.operations.reductions import dims_of
from lit_compress.pruning.channels.operations.registry import handles, unknown
from lit_compress.pruning.channels.tracing.counts import Count
from lit_compress.pruning.channels.tracing.labels import Labels, compact, core, varying
from lit_compress.pruning.channels.tracing.records import Call, Split
from lit_compress.pruning.channels.tracing.trace import Trace

WHY = "shares a channel dimension that is split"


@handles("view", "reshape", "flatten", "unflatten", "view_as", "reshape_as", "squeeze", "unsqueeze")
def reshape(trace: Trace, call: Call) -> None:
    """Run a change of shape on the twin; note where it splits a channel dimension."""
    image = call.args[0] if call.args else call.kwargs["input"]
    twin = trace.twin(image)
    if twin is None:
        return None
    if not isinstance(call.out, Tensor) or call.out.numel() != image.numel():
        return unknown(trace, call)
    moved = compact(twin.reshape(call.out.shape))
    split = varying(moved)
    if call.name == "squeeze" and set(varying(twin)) & _squeezed(call, image):
        why = call.reason(
            "is in a dimension that squeeze drops at size 1, so two channels must remain"
        )
        trace.labels.freeze(torch.unique(core(twin))[-2:], why)
    counts = _counts(call, call.out)
    if len(split) > max(1, len(varying(twin))):
        free = _free_dim(twin, moved, split)
        trace.splits.append(Split(moved, free, counts, call.reason(WHY)))
    elif len(split) == 1 and split[0] in counts:
        trace.count(counts[split[0]], core(moved).flatten())
    return trace.label(call.out, moved)


def _squeezed(call: Call, image: Tensor) -> set[int]:
    """Return the dimensions that a squeeze drops where their size is 1."""
    dims = call.argument(1, "dim")
    return set(range(image.dim())) if dims is None else dims_of(dims, image)


def _counts(call: Call, out: Tensor) -> dict[int, Count]:
    """Return, by dimension of the result, the attribute of a module that gives its size."""
    sizes, first = list(call.args[1:]), 0
    if call.name == "unflatten":
        first, sizes = call.argument(1, "dim") % call.args[0].dim(), sizes[1:]
    elif call.name not in ("view", "reshape"):
        return {}
    sizes = sizes or [call.kwargs.get("shape", call.kwargs.get("sizes", ()))]
    if len(sizes) == 1 and isinstance(sizes[0], (list, tuple)):
        sizes = list(sizes[0])
    named = {first + i: size for i, size in enumerate(sizes) if isinstance(size, Count)}
    return {dim: size for dim, size in named.items() if out.shape[dim] == size}


def _free_dim(before: Tensor, after: Tensor, split: Sequence[int]) -> int:
    """Return the part of a split channel dimension that may shrink; the other parts are fixed.

    If a vector becomes an image, it is the image's channel dimension; otherwise it is the larger
    part (58 of the 2 x 58 of a channel shuffle).
    """
    if before.dim() == 2 and after.dim() in (3, 4, 5) and 1 in split:
        return 1
    return max(split, key=lambda dim: (after.shape[dim], dim))


def settle(trace: Trace) -> None:
    """Decide for each split which part may shrink, when the whole run is known.

    It is the part that :func:`_free_dim` names. If an attention has tied the channels there (the
    indices of a head), it is the largest other part in which channels differ: the heads.

    Args:
        trace: A finished trace.
    """
    if not trace.splits:
        return
    roots = trace.labels.resolve()[0]
    for split in trace.splits:
        twin = split.twin
        free = split.free
        if free not in (left := _differing(twin, roots)) and left:
            free = max(left, key=lambda dim: (twin.shape[dim], dim))
        _tie_all_but(trace.labels, split, free)
        if free in split.counts:
            first = core(twin)
            for dim in set(range(twin.dim())) - {free}:
                first = first.narrow(dim, 0, 1)
            trace.count(split.counts[free], first.flatten())


def _differing(twin: Tensor, roots: np.ndarray) -> list[int]:
    """Return the dimensions along which the channels of a twin differ."""
    small = core(twin)
    channels = torch.from_numpy(roots)[small.clamp(min=0).long()]
    return varying(compact(torch.where(small >= 0, channels, -1)))


def _tie_all_but(labels: Labels, split: Split, free: int) -> None:
    """Tie the channels of a split along all dimensions but the one that may shrink."""
    for dim in varying(split.twin):
        if dim != free:
            first = split.twin.narrow(dim, 0, 1).expand(split.twin.shape)
            labels.tie(first, split.twin, split.reason)
