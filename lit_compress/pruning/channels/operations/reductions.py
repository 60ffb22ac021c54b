"""Operations along dimensions: pools, means, softmax, layer norm."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from lit_compress.pruning.channels.operations.elementwise import elementwise
from lit_compress.pruning.channels.operations.registry import handles, unknown
from lit_compress.pruning.channels.tracing.labels import UNLABELLED, core, spread, varying
from lit_compress.pruning.channels.tracing.records import Call
from lit_compress.pruning.channels.tracing.trace import Trace

POOLS = [
    f"{kind}_pool{rank}d{rest}"
    for kind in ("max", "avg", "adaptive_avg", "adaptive_max", "lp", "fractional_max")
    for rank in (1, 2, 3)
    for rest in ("", "_with_indices")
]
_SAME_SHAPE = "softmax log_softmax softmin cumsum cumprod normalize logcumsumexp"
_NAMES = """
mean sum amax amin max min prod var std var_mean std_mean logsumexp nanmean nansum norm
linalg_vector_norm
"""
REDUCING = _NAMES.split()
#: Reductions that norms are written with.
STATISTICS = ("mean", "var", "std", "var_mean", "std_mean", "norm", "linalg_vector_norm")


@handles(*POOLS, "interpolate", "upsample", "upsample_nearest", "upsample_bilinear")
def pool(trace: Trace, call: Call) -> None:
    """Pass labels through pooling or resizing of the last dimensions."""
    image = call.args[0] if call.args else call.kwargs["input"]
    twin = trace.twin(image)
    if twin is None:
        return None
    rank = [int(char) for char in call.name if char.isdigit()]
    dims = range(image.dim() - rank[0] if rank else 2, image.dim())
    if set(dims) & set(varying(twin)):
        return unknown(trace, call)
    for out in call.results():
        trace.label(out, _with_sizes(twin, out.shape))
    return None


@handles("pad")
def pad(trace: Trace, call: Call) -> None:
    """Pass labels through padding of dimensions in which they are constant."""
    image, widths = call.argument(0, "input"), list(call.argument(1, "pad"))
    twin = trace.twin(image)
    if twin is None:
        return None
    padded = {image.dim() - 1 - i // 2 for i, width in enumerate(widths) if width}
    if padded & set(varying(twin)):
        return unknown(trace, call)
    return trace.label(call.out, _with_sizes(twin, call.out.shape))


@handles(*_SAME_SHAPE.split())
def shaped_along(trace: Trace, call: Call) -> None:
    """Pass labels through an operation along dimensions that keeps the shape."""
    image = call.argument(0, "input")
    twin = trace.twin(image)
    if twin is None:
        return None
    dims = call.argument(2 if call.name == "normalize" else 1, "dim", 1)
    if not are_dims(dims):
        return unknown(trace, call)
    why = call.reason("is combined with all others")
    return trace.label(call.out, trace.labels.collapse(twin, dims_of(dims, image), why))


@handles("layer_norm", "rms_norm")
def layer_norm(trace: Trace, call: Call) -> None:
    """Pass labels through a norm over the last dimensions, if they are constant there."""
    image, shape = call.argument(0, "input"), call.argument(1, "normalized_shape")
    twin = trace.twin(image)
    if twin is None:
        return None
    dims = set(range(image.dim() - len(shape), image.dim()))
    if trace.approximate and dims & set(varying(twin)) and len(shape) == 1:
        return _mixed_norm(trace, call, image=image, twin=twin)
    why = call.reason("passes through a layer norm over all channels")
    return trace.label(call.out, trace.labels.collapse(twin, dims, why))


def _mixed_norm(trace: Trace, call: Call, *, image: Tensor, twin: Tensor) -> None:
    """Pass labels through a norm whose statistics are then of the channels that are left."""
    dim = image.dim() - 1
    labels = trace.labels.along(twin, dim, call.reason("shares a channel of the norm"))
    others = [tensor for tensor in call.tensors() if tensor is not image]
    for tensor in others:
        trace.use(tensor, 0, labels, "scale")
    owner = trace.modules[-1] if trace.modules else None
    if not others and owner is not None and isinstance(owner[1], (nn.LayerNorm, nn.RMSNorm)):
        trace.width(owner[0], labels, trace.reason(f"{owner[0]} is used more than once"))
    trace.label(call.out, spread(labels, call.out.shape, dim))
    trace.mix()


@handles(*REDUCING)
def reduce(trace: Trace, call: Call) -> None:
    """Pass labels through a reduction of dimensions in which they are constant."""
    image = call.argument(0, "input")
    if len(call.args) > 1 and isinstance(call.args[1], Tensor):
        return elementwise(trace, call)  # torch.max(a, b)
    twin = trace.twin(image)
    if twin is None:
        return None
    position = 2 if call.name.endswith("norm") else 1
    dims = call.kwargs.get("dim", call.kwargs.get("axis", call.argument(position, "dim")))
    if not are_dims(dims):
        return unknown(trace, call)
    if trace.approximate and dims_of(dims, image) & set(varying(twin)) and call.name in STATISTICS:
        trace.mix()
        twin = _without(twin, dims_of(dims, image))
    twin = trace.labels.collapse(twin, dims_of(dims, image), call.reason("is combined with others"))
    small = twin
    for dim in sorted(dims_of(dims, image), reverse=True):
        kept = call.results()[0].dim() == image.dim()
        small = small.narrow(dim, 0, 1) if kept else small.select(dim, 0)
    for out in call.results():
        trace.label(out, small)
    return None


@handles("glu")
def glu(trace: Trace, call: Call) -> None:
    """Tie the two halves of a gated linear unit."""
    image, dim = call.argument(0, "input"), call.argument(1, "dim", -1)
    twin = trace.twin(image)
    if twin is not None:
        first, second = twin.chunk(2, dim)
        trace.labels.tie(first, second, call.reason("gates channels that cannot be removed"))
        trace.label(call.out, first)


def are_dims(dims: Any) -> bool:
    """Tell whether a value is a dimension, or a list of at least one."""
    if isinstance(dims, (tuple, list)):
        return bool(dims) and all(isinstance(dim, int) for dim in dims)
    return isinstance(dims, int) and not isinstance(dims, bool)


def dims_of(dims: int | Iterable[int], tensor: Tensor) -> set[int]:
    """Return the dimensions of a tensor as a set of numbers from 0."""
    return {d % tensor.dim() for d in ((dims,) if isinstance(dims, int) else dims)}


def _without(twin: Tensor, dims: Iterable[int]) -> Tensor:
    """Return a twin without the labels that lie along dimensions."""
    if set(varying(twin)) & set(dims):
        return torch.full((1,) * twin.dim(), UNLABELLED, dtype=torch.int32).expand(twin.shape)
    return twin


def _with_sizes(twin: Tensor, shape: torch.Size) -> Tensor:
    """Return a twin of another shape, which differs only where the twin is constant."""
    return core(twin).expand(shape)
