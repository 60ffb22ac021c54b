"""Operations that move elements: they run on the twin itself."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from lit_compress.pruning.channels.operations.producers import tie_groups
from lit_compress.pruning.channels.operations.reductions import dims_of
from lit_compress.pruning.channels.operations.registry import handles, unknown
from lit_compress.pruning.channels.tracing.counts import Count
from lit_compress.pruning.channels.tracing.labels import (
    UNLABELLED,
    core,
    spread,
    varying,
)
from lit_compress.pruning.channels.tracing.records import Call
from lit_compress.pruning.channels.tracing.trace import Trace

_NAMES = """
permute transpose t swapaxes swapdims movedim moveaxis adjoint expand expand_as broadcast_to flip
repeat tile repeat_interleave pixel_shuffle pixel_unshuffle channel_shuffle native_channel_shuffle
atleast_1d atleast_2d atleast_3d
"""

MOVES = (*_NAMES.split(), "get T", "get mT", "get H", "get mH")


@handles(*MOVES)
def move(trace: Trace, call: Call) -> None:
    """Run a movement of elements on the twin."""
    image = call.args[0] if call.args else call.kwargs.get("input")
    if not isinstance(image, Tensor) or not isinstance(call.out, Tensor):
        return unknown(trace, call)
    twin = trace.twin(image)
    moved = replay(call, twin) if twin is not None else None
    if twin is None:
        return None
    if moved is None or moved.shape != call.out.shape:
        return unknown(trace, call)
    why = call.reason("is tied to the same position of another group")
    if call.name == "pixel_shuffle":
        trace.labels.along(moved, image.dim() - 3, why)
    if call.name.endswith("channel_shuffle"):
        labels = trace.labels.along(twin, 1, why)
        tie_groups(trace, call, labels, call.argument(1, "groups"))
    return trace.label(call.out, moved)


def replay(call: Call, twin: Tensor) -> Tensor | None:
    """Return the result of the call with a twin instead of its first tensor, None if it fails."""
    if call.name.startswith("get "):
        moved: Tensor = getattr(twin, call.name[4:])
        return moved
    args, kwargs = tree_map(
        lambda v: v.cpu() if isinstance(v, Tensor) else v, (call.args, call.kwargs)
    )
    if args:
        args = (twin, *args[1:])
    else:
        kwargs = {**kwargs, "input": twin}
    try:
        result = call.func(*args, **kwargs)
    except RuntimeError:  # the operation does not support integers
        return None
    return result if isinstance(result, Tensor) else None


@handles("cat", "concat", "concatenate", "stack", "hstack", "vstack")
def cat(trace: Trace, call: Call) -> None:
    """Concatenate twins, and tie their labels across the other dimensions."""
    tensors = call.argument(0, "tensors")
    if call.name in ("hstack", "vstack") or call.kwargs.get("out") is not None:
        return unknown(trace, call)
    dim = call.argument(1, "dim", call.kwargs.get("axis", 0)) % call.out.dim()
    first = next((twin for twin in map(trace.twin, tensors) if twin is not None), None)
    tensors = [tensor for tensor in tensors if tensor.numel()]
    along = (
        () if first is None else set(varying(first)) - ({dim} if call.name != "stack" else set())
    )
    twins = [_twin_to_join(trace, call, tensor, first, sorted(along)) for tensor in tensors]
    if first is None:
        return None
    if call.name == "stack":
        twins = [twin.unsqueeze(dim) for twin in twins]
    if set().union(*map(varying, twins)) - {dim}:
        twins = _tied_across(trace, twins, dim, call)
    others = set().union(*(varying(twin) for twin in twins)) - {dim}
    if not others:
        rows = [_row(twin, dim) for twin in twins]
        return trace.label(call.out, spread(torch.cat(rows), call.out.shape, dim))
    return trace.label(call.out, torch.cat(twins, dim))


def _twin_to_join(
    trace: Trace, call: Call, tensor: Tensor, first: Tensor | None, dims: list[int]
) -> Tensor:
    """Return the twin of a tensor that is concatenated.

    A parameter (a class token) has the channels of what it is joined with; ``dims`` are the
    dimensions along which those lie.
    """
    twin = trace.twin(tensor)
    if twin is not None:
        return twin
    if trace.sources(tensor):
        why = call.reason("is concatenated with activations")
        if first is not None and len(dims) == 1:
            labels = trace.labels.along(first, dims[0], why)
            if len(labels) == tensor.shape[dims[0]] and trace.follow(tensor, dims[0], labels):
                return spread(labels, tensor.shape, dims[0])
        trace.freeze(tensor, why)
    return torch.full((1,) * tensor.dim(), UNLABELLED, dtype=torch.int32).expand(tensor.shape)


def _row(twin: Tensor, dim: int) -> Tensor:
    return core(twin).reshape(-1).expand(twin.shape[dim])


def _tied_across(trace: Trace, twins: list[Tensor], dim: int, call: Call) -> list[Tensor]:
    """Return concatenated twins whose labels lie along other dimensions, and are tied there."""
    why = call.reason("is concatenated with channels that cannot be removed")
    twins = [trace.labels.collapse(twin, {dim}, why) for twin in twins]
    for twin in twins[1:]:
        trace.labels.tie(twins[0].narrow(dim, 0, 1), twin.narrow(dim, 0, 1), why)
    return twins


@handles("chunk", "split", "tensor_split", "split_with_sizes")
def split(trace: Trace, call: Call) -> None:
    """Split a twin; tie equal parts of a channel dimension, and freeze unequal ones."""
    image = call.args[0] if call.args else call.kwargs["input"]
    twin = trace.twin(image)
    if twin is None:
        return
    dim = call.kwargs.get("dim", call.args[2] if len(call.args) > 2 else 0) % image.dim()
    parts, start = [], 0
    size = call.argument(1, "split_size")
    if isinstance(size, Count) and call.name == "split" and dim in varying(twin):
        part = trace.labels.along(twin, dim, call.reason("is split into parts"))[: int(size)]
        trace.count(size, part)
    for out in call.out:
        parts.append(twin.narrow(dim, start, out.shape[dim]))
        start += out.shape[dim]
    if dim in varying(twin):
        if len({part.shape[dim] for part in parts}) > 1:
            trace.labels.freeze(twin, call.reason("is split into unequal parts"))
        else:
            for part in parts[1:]:
                why = call.reason("is tied to the same position of another part")
                trace.labels.tie(parts[0], part, why)
    for out, part in zip(call.out, parts, strict=True):
        trace.label(out, part)


@handles("getitem", "narrow", "select", "index_select", "unbind", "roll", "take_along_dim")
def pick(trace: Trace, call: Call) -> None:
    """Run an indexing on the twin; freeze labels if it selects part of a channel dimension."""
    image = call.args[0] if call.args else call.kwargs["input"]
    twin = trace.twin(image)
    if twin is None:
        return
    why = call.reason("is selected by a fixed index")
    twin = trace.labels.collapse(twin, _indexed(call, image), why)
    if call.name == "unbind":
        dim = call.argument(1, "dim", 0)
        for out, part in zip(call.out, twin.unbind(dim), strict=True):
            trace.label(out, part)
        return
    moved = replay(call, twin)
    if moved is None:
        trace.labels.freeze(twin, why)
    else:
        trace.label(call.out, moved)


def _indexed(call: Call, image: Tensor) -> set[int]:
    """Return the dimensions of which an index selects a part."""
    every = set(range(image.dim()))
    if call.name == "roll":
        dims = call.argument(2, "dims")
        return every if dims is None else dims_of(dims, image)
    if call.name != "getitem":
        dim = call.argument(1, "dim", 0)
        return {dim % image.dim()} if isinstance(dim, int) else every
    index = call.args[1] if isinstance(call.args[1], tuple) else (call.args[1],)
    if any(not isinstance(i, (int, slice, type(None), type(Ellipsis))) for i in index):
        return every
    by_dim = [i for i in index if i is not None]
    if Ellipsis in by_dim:
        at = by_dim.index(Ellipsis)
        by_dim[at : at + 1] = [slice(None)] * (image.dim() - len(by_dim) + 1)
    return {
        dim
        for dim, i in enumerate(by_dim)
        if not (isinstance(i, slice) and _selects_all(i, image.shape[dim]))
    }


def _selects_all(part: slice, size: int) -> bool:
    return part.indices(size) == (0, size, 1)
