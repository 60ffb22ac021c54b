"""Operations that move elements: they run on the twin itself."""

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
#: Largest number of elements of a parameter whose views are followed; a limit saves time.
VIEW_LIMIT = 1 << 16


@handles("view", "reshape", "flatten", "unflatten", "view_as", "reshape_as", "squeeze", "unsqueeze")
def reshape(trace: Trace, call: Call) -> None:
    """Run a change of shape on the twin; tie the fixed parts of a channel dimension it splits."""
    image = call.args[0] if call.args else call.kwargs["input"]
    twin = trace.twin(image)
    if twin is None:
        return _move_view(trace, call, image, lambda t: t.reshape(call.out.shape))
    if not isinstance(call.out, Tensor) or call.out.numel() != image.numel():
        return unknown(trace, call)
    moved = compact(twin.reshape(call.out.shape))
    split = varying(moved)
    if call.name == "squeeze" and set(varying(twin)) & _squeezed(call, image):
        why = call.reason(
            "is in a dimension that squeeze drops at size 1, so two channels must remain"
        )
        trace.labels.freeze(torch.unique(core(twin))[-2:], why)
    if len(split) > max(1, len(varying(twin))):
        free = _free_dim(twin, moved, split)
        for dim in split:
            if dim != free:
                first = moved.narrow(dim, 0, 1).expand(moved.shape)
                trace.labels.tie(
                    first, moved, call.reason("shares a channel dimension that is split")
                )
    return trace.label(call.out, moved)


def _squeezed(call: Call, image: Tensor) -> set[int]:
    """Return the dimensions that a squeeze drops where their size is 1."""
    dims = call.argument(1, "dim")
    return set(range(image.dim())) if dims is None else dims_of(dims, image)


def _free_dim(before: Tensor, after: Tensor, split: Sequence[int]) -> int:
    """Return the part of a split channel dimension that may shrink; the other parts are fixed.

    If a vector becomes an image, it is the image's channel dimension; otherwise it is the larger
    part (58 of the 2 x 58 of a channel shuffle).
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
    moved = _replay(call, twin) if twin is not None else None
    if twin is None:
        return _move_view(trace, call, image, lambda t: _replay(call, t))
    if moved is None or moved.shape != call.out.shape:
        return unknown(trace, call)
    why = call.reason("is tied to the same position of another group")
    if call.name == "pixel_shuffle":
        trace.labels.along(moved, image.dim() - 3, why)
    if call.name.endswith("channel_shuffle"):
        labels = trace.labels.along(twin, 1, why)
        tie_groups(trace, call, labels, call.argument(1, "groups"))
    return trace.label(call.out, moved)


def _replay(call: Call, twin: Tensor) -> Tensor | None:
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


def _move_view(
    trace: Trace, call: Call, image: Tensor, replay: Callable[[Tensor], Tensor | None]
) -> None:
    """Follow the elements of a model's own tensor through a movement; ``replay`` moves them."""
    name, elements = trace.view(image) if image.numel() <= VIEW_LIMIT else (trace.name(image), None)
    if not name:
        return
    moved = None if elements is None else replay(elements)
    if moved is not None and moved.shape == call.out.shape:
        trace.set_view(call.out, name, moved)
    else:
        trace.freeze(image, call.reason("is used in another shape"))


@handles("cat", "concat", "concatenate", "stack", "hstack", "vstack")
def cat(trace: Trace, call: Call) -> None:
    """Concatenate twins, and tie their labels across the other dimensions."""
    tensors = call.argument(0, "tensors")
    if call.name in ("hstack", "vstack") or call.kwargs.get("out") is not None:
        return unknown(trace, call)
    dim = call.argument(1, "dim", call.kwargs.get("axis", 0)) % call.out.dim()
    for tensor in tensors:
        if trace.view(tensor)[0]:
            trace.freeze(tensor, call.reason("is concatenated with activations"))
    if all(trace.twin(tensor) is None for tensor in tensors):
        return None
    tensors = [t for t in tensors if t.numel()]
    twins = [_twin_or_unlabelled(trace, tensor) for tensor in tensors]
    if call.name == "stack":
        twins = [twin.unsqueeze(dim) for twin in twins]
    why = call.reason("is concatenated with channels that cannot be removed")
    for twin in twins[1:]:
        _tie_across(trace, twins[0], twin, dim, why)
    others = set().union(*(varying(twin) for twin in twins)) - {dim}
    if not others:
        rows = [_row(twin, dim) for twin in twins]
        return trace.label(call.out, spread(torch.cat(rows), call.out.shape, dim))
    return trace.label(call.out, torch.cat(twins, dim))


def _twin_or_unlabelled(trace: Trace, tensor: Tensor) -> Tensor:
    twin = trace.twin(tensor)
    if twin is None:
        return torch.full((1,) * tensor.dim(), UNLABELLED, dtype=torch.int32).expand(tensor.shape)
    return twin


def _row(twin: Tensor, dim: int) -> Tensor:
    return core(twin).reshape(-1).expand(twin.shape[dim])


def _tie_across(trace: Trace, first: Tensor, second: Tensor, dim: int, why: Reason) -> None:
    """Tie two concatenated twins in the other dimensions, if one of them varies there."""
    if not (set(varying(first)) | set(varying(second))) - {dim}:
        return
    if dim in varying(first) or dim in varying(second):
        trace.labels.freeze(first, why)
        trace.labels.freeze(second, why)
        return
    trace.labels.tie(first.narrow(dim, 0, 1), second.narrow(dim, 0, 1), why)


@handles("chunk", "split", "tensor_split", "split_with_sizes")
def split(trace: Trace, call: Call) -> None:
    """Split a twin; tie equal parts of a channel dimension, and freeze unequal ones."""
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
        if call.name == "getitem":
            _move_view(trace, call, image, lambda t: _replay(call, t))
        elif trace.view(image)[0]:
            trace.freeze(image, call.reason("is used in part"))
        return
    why = call.reason("is selected by a fixed index")
    if _indexes_labels(call, set(varying(twin)), image):
        trace.labels.freeze(twin, why)
    if call.name == "unbind":
        dim = call.argument(1, "dim", 0)
        for out, part in zip(call.out, twin.unbind(dim), strict=True):
            trace.label(out, part)
        return
    moved = _replay(call, twin)
    if moved is None:
        trace.labels.freeze(twin, why)
    else:
        trace.label(call.out, moved)


def _indexes_labels(call: Call, labelled: set[int], image: Tensor) -> bool:
    """Tell whether an index selects a part of a dimension along which labels vary."""
    if call.name == "roll":
        dims = call.argument(2, "dims")
        return dims is None or bool(dims_of(dims, image) & labelled)
    if call.name != "getitem":
        dim = call.argument(1, "dim", 0)
        return not isinstance(dim, int) or dim % image.dim() in labelled
    index = call.args[1] if isinstance(call.args[1], tuple) else (call.args[1],)
    if any(not isinstance(i, (int, slice, type(None), type(Ellipsis))) for i in index):
        return bool(labelled)
    by_dim = [i for i in index if i is not None]
    if Ellipsis in by_dim:
        at = by_dim.index(Ellipsis)
        by_dim[at : at + 1] = [slice(None)] * (image.dim() - len(by_dim) + 1)
    return any(
        dim in labelled and not (isinstance(i, slice) and _selects_all(i, image.shape[dim]))
        for dim, i in enumerate(by_dim)
    )


def _selects_all(part: slice, size: int) -> bool:
    return part.indices(size) == (0, size, 1)
