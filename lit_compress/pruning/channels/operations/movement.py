"""Operations that move elements: run on the twin itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from lit_compress.pruning.channels.labels import UNLABELLED, Reason, compact, core, spread, varying
from lit_compress.pruning.channels.operations.producers import tie_groups
from lit_compress.pruning.channels.operations.reductions import dims_of
from lit_compress.pruning.channels.operations.registry import handles, unknown
from lit_compress.pruning.channels.trace import Call, Trace

_MOVES = """
permute transpose t swapaxes swapdims movedim moveaxis adjoint expand expand_as broadcast_to flip
repeat tile repeat_interleave pixel_shuffle pixel_unshuffle channel_shuffle native_channel_shuffle
atleast_1d atleast_2d atleast_3d
"""
#: Elements of a parameter beyond which its views are not followed, to save time.
VIEW_LIMIT = 1 << 16


@handles("view", "reshape", "flatten", "unflatten", "view_as", "reshape_as", "squeeze", "unsqueeze")
def reshape(trace: Trace, call: Call) -> None:
    """Run a change of shape on the twin; a channel dimension that is split stays rectangular."""
    image = call.args[0] if call.args else call.kwargs["input"]
    twin = trace.twin(image)
    if twin is None:
        return _move_view(trace, call, image, lambda t: t.reshape(call.out.shape))
    if not isinstance(call.out, Tensor) or call.out.numel() != image.numel():
        return unknown(trace, call)
    moved = compact(twin.reshape(call.out.shape))
    split = varying(moved)
    if call.name == "squeeze" and set(varying(twin)) & _squeezed(call, image):
        why = call.reason("would be dropped as a dimension of size 1, so two channels stay")
        trace.labels.freeze(torch.unique(core(twin))[-2:], why)
    if len(split) > max(1, len(varying(twin))):
        free = _free_dim(twin, moved, split)
        for dim in split:
            if dim != free:
                first = moved.narrow(dim, 0, 1).expand(moved.shape)
                trace.labels.tie(first, moved, call.reason("shares a split channel dimension"))
    return trace.label(call.out, moved)


def _squeezed(call: Call, image: Tensor) -> set[int]:
    """Return the dimensions that a squeeze drops where their size is 1."""
    dims = call.argument(1, "dim")
    return set(range(image.dim())) if dims is None else dims_of(dims, image)


def _free_dim(before: Tensor, after: Tensor, split: Sequence[int]) -> int:
    """Return the dimension of a split that channels may leave: the rest is taken to be fixed.

    A vector that becomes an image gets its channels in front; otherwise the larger part (58 of the
    2 x 58 of a channel shuffle) is the one that changes with the width.
    """
    if before.dim() == 2 and after.dim() in (3, 4, 5) and 1 in split:
        return 1
    return max(split, key=lambda dim: (after.shape[dim], dim))


@handles(
    *_MOVES.split(),
    "get T",
    "get mT",
    "get H",
    "get mH",
)
def move(trace: Trace, call: Call) -> None:
    """Run a movement of elements on the twin."""
    image = call.args[0] if call.args else call.kwargs.get("input")
    if not isinstance(image, Tensor) or not isinstance(call.out, Tensor):
        return unknown(trace, call)
    twin = trace.twin(image)
    moved = _replayed(trace, call, twin) if twin is not None else None
    if twin is None:
        return _move_view(trace, call, image, lambda t: _replayed(trace, call, t))
    if moved is None or moved.shape != call.out.shape:
        return unknown(trace, call)
    why = call.reason("stands in the same place of another group")
    if call.name == "pixel_shuffle":
        trace.labels.along(moved, image.dim() - 3, why)
    if call.name.endswith("channel_shuffle"):
        labels = trace.labels.along(twin, 1, why)
        tie_groups(trace, call, labels, call.argument(1, "groups"))
    return trace.label(call.out, moved)


def _replayed(trace: Trace, call: Call, twin: Tensor) -> Tensor | None:
    """Return what the call makes of a twin in the place of its first tensor."""
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
    except RuntimeError:  # an operation that has no integer form
        return None
    return result if isinstance(result, Tensor) else None


def _move_view(
    trace: Trace, call: Call, image: Tensor, again: Callable[[Tensor], Tensor | None]
) -> None:
    """Follow the elements of one of the model's own tensors."""
    name, elements = trace.view(image) if image.numel() <= VIEW_LIMIT else (trace.name(image), None)
    if not name:
        return
    moved = None if elements is None else again(elements)
    if moved is not None and moved.shape == call.out.shape:
        trace.set_view(call.out, name, moved)
    else:
        trace.freeze(image, call.reason("is used in another shape"))


@handles("cat", "concat", "concatenate", "stack", "hstack", "vstack")
def cat(trace: Trace, call: Call) -> None:
    """Join twins, and tie what must stay of one size."""
    tensors = call.argument(0, "tensors")
    if call.name in ("hstack", "vstack") or call.kwargs.get("out") is not None:
        return unknown(trace, call)
    dim = call.argument(1, "dim", call.kwargs.get("axis", 0)) % call.out.dim()
    for tensor in tensors:
        if trace.view(tensor)[0]:
            trace.freeze(tensor, call.reason("is joined with activations"))
    if all(trace.twin(tensor) is None for tensor in tensors):
        return None
    tensors = [t for t in tensors if t.numel()]
    twins = [_twin_or_bare(trace, tensor) for tensor in tensors]
    if call.name == "stack":
        twins = [twin.unsqueeze(dim) for twin in twins]
    why = call.reason("is joined with channels that cannot go")
    for twin in twins[1:]:
        _tie_across(trace, twins[0], twin, dim, why)
    others = set().union(*(varying(twin) for twin in twins)) - {dim}
    if not others:
        rows = [_row(twin, dim) for twin in twins]
        return trace.label(call.out, spread(torch.cat(rows), call.out.shape, dim))
    return trace.label(call.out, torch.cat(twins, dim))


def _twin_or_bare(trace: Trace, tensor: Tensor) -> Tensor:
    twin = trace.twin(tensor)
    if twin is None:
        return torch.full((1,) * tensor.dim(), UNLABELLED, dtype=torch.int32).expand(tensor.shape)
    return twin


def _row(twin: Tensor, dim: int) -> Tensor:
    return core(twin).reshape(-1).expand(twin.shape[dim])


def _tie_across(trace: Trace, first: Tensor, second: Tensor, dim: int, why: Reason) -> None:
    """Tie two joined twins in the dimensions across the join, if either varies there."""
    if not (set(varying(first)) | set(varying(second))) - {dim}:
        return
    if dim in varying(first) or dim in varying(second):
        trace.labels.freeze(first, why)
        trace.labels.freeze(second, why)
        return
    trace.labels.tie(first.narrow(dim, 0, 1), second.narrow(dim, 0, 1), why)


@handles("chunk", "split", "tensor_split", "split_with_sizes")
def split(trace: Trace, call: Call) -> None:
    """Cut a twin; parts of a channel dimension stay equal, or are frozen."""
    image = call.args[0] if call.args else call.kwargs["input"]
    twin = trace.twin(image)
    if twin is None:
        if trace.view(image)[0]:
            trace.freeze(image, call.reason("is used in parts"))
        return
    dim = call.kwargs.get("dim", call.args[2] if len(call.args) > 2 else 0) % image.dim()
    parts, start = [], 0
    for out in call.out:
        parts.append(twin.narrow(dim, start, out.shape[dim]))
        start += out.shape[dim]
    if dim in varying(twin):
        if len({part.shape[dim] for part in parts}) > 1:
            trace.labels.freeze(twin, call.reason("is split into unequal parts"))
        else:
            for part in parts[1:]:
                why = call.reason("stands in the same place of another part")
                trace.labels.tie(parts[0], part, why)
    for out, part in zip(call.out, parts, strict=True):
        trace.label(out, part)


@handles("getitem", "narrow", "select", "index_select", "unbind", "roll", "take_along_dim")
def pick(trace: Trace, call: Call) -> None:
    """Take part of a tensor: outside its channel dimension, or freeze what lies in it."""
    image = call.args[0] if call.args else call.kwargs["input"]
    twin = trace.twin(image)
    if twin is None:
        if call.name == "getitem":
            _move_view(trace, call, image, lambda t: _replayed(trace, call, t))
        elif trace.view(image)[0]:
            trace.freeze(image, call.reason("is used in part"))
        return
    why = call.reason("is picked out by a fixed index")
    if _touches(call, set(varying(twin)), image):
        trace.labels.freeze(twin, why)
    if call.name == "unbind":
        dim = call.argument(1, "dim", 0)
        for out, part in zip(call.out, twin.unbind(dim), strict=True):
            trace.label(out, part)
        return
    moved = _replayed(trace, call, twin)
    if moved is None:
        trace.labels.freeze(twin, why)
    else:
        trace.label(call.out, moved)


def _touches(call: Call, labelled: set[int], image: Tensor) -> bool:
    """Tell whether an index reaches into a dimension along which labels vary."""
    if call.name == "roll":
        dims = call.argument(2, "dims")
        return dims is None or bool(dims_of(dims, image) & labelled)
    if call.name != "getitem":
        dim = call.argument(1, "dim", 0)
        return not isinstance(dim, int) or dim % image.dim() in labelled
    index = call.args[1] if isinstance(call.args[1], tuple) else (call.args[1],)
    if any(not isinstance(i, (int, slice, type(None), type(Ellipsis))) for i in index):
        return bool(labelled)
    taken = [i for i in index if i is not None]
    if Ellipsis in taken:
        at = taken.index(Ellipsis)
        taken[at : at + 1] = [slice(None)] * (image.dim() - len(taken) + 1)
    return any(
        dim in labelled and not (isinstance(i, slice) and _whole(i, image.shape[dim]))
        for dim, i in enumerate(taken)
    )


def _whole(part: slice, size: int) -> bool:
    return part.indices(size) == (0, size, 1)
