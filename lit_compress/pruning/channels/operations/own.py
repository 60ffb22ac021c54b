"""Weights that are computed from parameters: standardised, normalised, low-rank, put together.

A call whose tensors are all the model's own has no activations to follow, but its result may be the
weight of a layer. Each dimension of a parameter has labels of its own here, so a tensor has one
twin for each: a weight of shape (out, in) is followed by two twins, which move as it moves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from lit_compress.pruning.channels.operations.attention import product_letters
from lit_compress.pruning.channels.operations.elementwise import ELEMENTWISE
from lit_compress.pruning.channels.operations.movement import MOVES, replay
from lit_compress.pruning.channels.operations.reductions import REDUCING, are_dims, dims_of
from lit_compress.pruning.channels.tracing.labels import UNLABELLED, compact, core, varying
from lit_compress.pruning.channels.tracing.records import Call, Computed
from lit_compress.pruning.channels.tracing.trace import Trace

Twins = dict[tuple[str, int], Tensor]
RESHAPES = ("view", "reshape", "flatten", "unflatten", "view_as", "reshape_as", "squeeze")
PICKS = ("getitem", "narrow", "select", "unbind", "chunk", "split", "split_with_sizes")
SAME_SHAPE = ("softmax", "log_softmax", "normalize")
PRODUCTS = ("matmul", "mm", "mv", "dot", "vdot", "inner")


def own(trace: Trace, call: Call) -> bool:
    """Follow a call whose tensors are all the model's own.

    Returns:
        Whether it could be followed.
    """
    handler = _HANDLERS.get(call.name)
    if handler is None or not call.results():
        return False
    made = [trace.computed(tensor) for tensor in call.tensors()]
    known = [one for one in made if one is not None]
    normed = set().union(*(one.normed for one in known))
    twins = handler(trace, call, normed)
    if twins is None:
        return False
    sources = {name: None for one in known for name in one.sources}
    largest = sorted(sources, key=lambda name: -trace.tensors[name].numel())
    for out, own_twins in zip(call.results(), twins, strict=False):
        kept = {key: compact(twin) for key, twin in own_twins.items() if bool((twin >= 0).any())}
        trace.set_computed(out, Computed(kept, tuple(largest), frozenset(normed)))
    return True


Normed = set[tuple[str, int]]
Handler = Callable[[Trace, Call, Normed], "list[Twins] | None"]


def _twins(trace: Trace, tensor: Any) -> Mapping[tuple[str, int], Tensor]:
    made = trace.computed(tensor) if isinstance(tensor, Tensor) else None
    return {} if made is None else made.twins


def _moved(trace: Trace, call: Call, normed: Normed) -> list[Twins] | None:
    """Move each twin as the tensor is moved."""
    twins = {key: replay(call, twin) for key, twin in _twins(trace, _image(call)).items()}
    if any(twin is None or twin.shape != call.out.shape for twin in twins.values()):
        return None
    return [{key: twin for key, twin in twins.items() if twin is not None}]


def _reshaped(trace: Trace, call: Call, normed: Normed) -> list[Twins] | None:
    """Reshape each twin."""
    if call.out.numel() != _image(call).numel():
        return None
    return [{k: t.reshape(call.out.shape) for k, t in _twins(trace, _image(call)).items()}]


def _picked(trace: Trace, call: Call, normed: Normed) -> list[Twins] | None:
    """Take the same part of each twin."""
    parts: list[Twins] = [{} for _ in call.results()]
    for key, twin in _twins(trace, _image(call)).items():
        args, kwargs = tree_map(_on_cpu, (call.args[1:], call.kwargs))
        try:
            picked = call.func(twin, *args, **kwargs)
        except (RuntimeError, IndexError):
            return None
        for part, twin_of_part in zip(
            parts, [picked] if isinstance(picked, Tensor) else picked, strict=True
        ):
            part[key] = twin_of_part
    return parts


def _same_shape(trace: Trace, call: Call, normed: Normed) -> list[Twins] | None:
    """Follow a call that combines the elements along a dimension."""
    dims = call.argument(2 if call.name == "normalize" else 1, "dim", 1)
    if not are_dims(dims):
        return None
    image = _image(call)
    return [_mixed_along(trace, normed, _twins(trace, image), dims_of(dims, image))]


def _mixed_along(
    trace: Trace, normed: Normed, twins: Mapping[tuple[str, int], Tensor], dims: set[int]
) -> Twins:
    """Record that a call depends on all indices along dimensions; return the twins as they are.

    Two indices must remain there: a single value has no variance.
    """
    for key, twin in twins.items():
        if dims & set(varying(twin)):
            normed.add(key)
            trace.recording.min_indices.setdefault(key, 2)
            trace.mix()
    return dict(twins)


def _elementwise(trace: Trace, call: Call, normed: Normed) -> list[Twins] | None:
    """Put together the twins of all arguments; tie those of the same dimension of a parameter."""
    tensors = call.tensors()[:1] if call.name in ("to", "type_as") else call.tensors()
    return [_together(trace, call, [_twins(trace, t) for t in tensors], call.results()[0].shape)]


def _together(
    trace: Trace, call: Call, all_twins: Iterable[Mapping[Any, Tensor]], shape: torch.Size
) -> Twins:
    found: Twins = {}
    for twins in all_twins:
        for key, twin in twins.items():
            wide = twin.broadcast_to(shape)
            if key in found:
                trace.labels.tie(found[key], wide, call.reason("is combined with itself"))
            else:
                found[key] = wide
    return found


def _reduced(trace: Trace, call: Call, normed: Normed) -> list[Twins] | None:
    """Drop the twins along the dimensions that are summed."""
    image = _image(call)
    if len(call.args) > 1 and isinstance(call.args[1], Tensor):
        return _elementwise(trace, call, normed)  # torch.max(a, b)
    position = 2 if call.name.endswith("norm") else 1
    dims = call.kwargs.get("dim", call.kwargs.get("axis", call.argument(position, "dim")))
    summed = dims_of(dims, image) if are_dims(dims) else set(range(image.dim()))
    kept = call.results()[0].dim() == image.dim()
    twins = _mixed_along(trace, normed, _twins(trace, image), summed)
    left = {k: _dropped(t, summed, kept) for k, t in twins.items() if not summed & set(varying(t))}
    return [left for _ in call.results()]


def _dropped(twin: Tensor, dims: set[int], kept: bool) -> Tensor:
    """Return a twin without some dimensions, or with size 1 there."""
    for dim in sorted(dims, reverse=True):
        twin = twin.narrow(dim, 0, 1) if kept else twin.select(dim, 0)
    return twin


def _batch_norm(trace: Trace, call: Call, normed: Normed) -> list[Twins] | None:
    """Follow a weight that is standardised by a batch norm: its filters are the channels."""
    image = _image(call)
    twins = _mixed_along(trace, normed, _twins(trace, image), set(range(image.dim())) - {1})
    rows = [
        {key: twin.view(1, -1, *[1] * (image.dim() - 2)) for key, twin in _twins(trace, t).items()}
        for t in call.tensors()
        if t is not image and t.dim() == 1
    ]
    return [_together(trace, call, [twins, *rows], call.out.shape)]


def _weight_norm(trace: Trace, call: Call, normed: Normed) -> list[Twins] | None:
    """Follow a weight that is a direction times a length."""
    direction, length, dim = call.args[0], call.args[1], call.argument(2, "dim", 0)
    every = set(range(direction.dim()))  # at -1 there is one length for all
    others = every if dim == -1 else every - {dim}
    twins = _mixed_along(trace, normed, _twins(trace, direction), others)
    together = [twins, _twins(trace, length)]
    return [_together(trace, call, together, direction.shape) for _ in call.results()]


def _product(trace: Trace, call: Call, normed: Normed) -> list[Twins] | None:
    """Follow the product of two parameters; what is summed gets the same labels in both.

    A sum over filters is allowed here: spectral norm divides all filters by one number.
    """
    left, right = call.args[:2]
    if left.dim() > 1 and right.dim() > 1:
        letters, output = product_letters(left, right)
    else:
        letters = ("ij"[2 - left.dim() :], "jk"[: right.dim()])
        output = letters[0][:-1] + letters[1][1:]
    summed = (set(letters[0]) & set(letters[1])) - set(output)
    found: Twins = {}
    inner: list[Tensor] = []
    for tensor, names in zip((left, right), letters, strict=True):
        dims = {names.index(letter) for letter in summed}
        twins = _mixed_along(trace, set(), _twins(trace, tensor), dims)
        for key, twin in twins.items():
            if dims & set(varying(twin)):
                inner.append(core(twin).flatten())
            else:
                found[key] = _spread(twin, names, output).expand(call.out.shape)
    for one in inner[1:]:
        if one.shape == inner[0].shape:
            trace.labels.tie(inner[0], one, call.reason("is summed"))
    return [found]


def _spread(twin: Tensor, names: str, output: str) -> Tensor:
    """Return a twin with the dimensions of a product."""
    for dim in sorted((i for i, c in enumerate(names) if c not in output), reverse=True):
        twin = twin.select(dim, 0)
    left = [letter for letter in names if letter in output]
    for dim, letter in enumerate(output):
        if letter not in left:
            twin = twin.unsqueeze(dim)
    return twin


def _joined(trace: Trace, call: Call, normed: Normed) -> list[Twins] | None:
    """Join twins; where a part has none, its indices have no labels."""
    tensors = call.argument(0, "tensors")
    dim = call.argument(1, "dim", call.kwargs.get("axis", 0))
    if not isinstance(dim, int) or call.name not in ("cat", "concat", "concatenate", "stack"):
        return None
    joined: Twins = {}
    for key in {key: None for tensor in tensors for key in _twins(trace, tensor)}:
        parts = [_twins(trace, tensor).get(key) for tensor in tensors]
        filled = [
            torch.full(tensor.shape, UNLABELLED, dtype=torch.int32) if part is None else part
            for tensor, part in zip(tensors, parts, strict=True)
        ]
        joined[key] = call.func(filled, dim)
    return [joined]


def _on_cpu(value: Any) -> Any:
    return value.cpu() if isinstance(value, Tensor) else value


def _image(call: Call) -> Any:
    return call.args[0] if call.args else call.kwargs["input"]


_HANDLERS: dict[str, Handler] = {
    **dict.fromkeys(MOVES, _moved),
    **dict.fromkeys((*RESHAPES, "unsqueeze"), _reshaped),
    **dict.fromkeys(PICKS, _picked),
    **dict.fromkeys(SAME_SHAPE, _same_shape),
    **dict.fromkeys(ELEMENTWISE, _elementwise),
    **dict.fromkeys(REDUCING, _reduced),
    **dict.fromkeys(PRODUCTS, _product),
    **dict.fromkeys(("cat", "concat", "concatenate", "stack"), _joined),
    "batch_norm": _batch_norm,
    "weight_norm": _weight_norm,
    "weight_norm_interface": _weight_norm,
}
