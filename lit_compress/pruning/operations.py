"""What each torch operation does with the labels of channels.

There are few kinds. *Producers* (conv, linear) read the labels of their input and make new ones.
*Per-channel* operations (norms, gates, parameters that scale) pass them. *Movement* (view, cat, chunk
...) is run on the twin itself. *Element-wise* operations tie labels position by position. Operations
*along* dimensions (pooling, mean, softmax) pass labels that are constant there. Everything else freezes
its labels, with a reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from lit_compress.pruning.labels import UNLABELLED, compact, core, spread, varying
from lit_compress.pruning.trace import Call, Trace

Rule = Callable[[Trace, Call], None]
RULES: dict[str, Rule] = {}

#: Ask about a tensor without looking at its values.
INERT = """
size dim numel nelement ndimension stride storage_offset element_size get_device is_contiguous
is_floating_point is_complex is_signed is_nested is_inference is_same_size has_names len hash
repr format str data_ptr is_sparse is_quantized is_pinned result_type can_cast promote_types
""".split()
INERT += [
    f"get {name}"
    for name in "shape dtype device ndim layout requires_grad is_leaf grad_fn is_cuda is_cpu is_mps "
    "is_sparse is_quantized is_nested names itemsize nbytes _version is_meta output_nr".split()
]

#: Same element in, same element out; several tensors are tied position by position.
ELEMENTWISE = """
relu relu6 hardtanh hardswish hardsigmoid sigmoid logsigmoid silu gelu tanh tanhshrink elu celu selu
leaky_relu rrelu softplus softsign softshrink hardshrink threshold mish dropout dropout1d dropout2d
dropout3d alpha_dropout feature_alpha_dropout feature_dropout clamp clip clamp_min clamp_max neg
negative pos positive abs absolute pow rpow sqrt rsqrt square exp exp2 expm1 log log2 log10 log1p
reciprocal sign sgn sin cos tan asin acos atan sinh cosh erf erfc round floor ceil trunc frac
nan_to_num isnan isinf isfinite logical_not bitwise_not invert
add radd iadd sub rsub isub subtract mul rmul imul multiply div rdiv idiv truediv rtruediv itruediv
divide true_divide floordiv rfloordiv ifloordiv floor_divide mod rmod fmod remainder maximum minimum
fmax fmin atan2 hypot where masked_fill lerp addcmul addcdiv eq ne lt le gt ge logical_and logical_or
logical_xor and or xor isclose copysign logaddexp xlogy
clone contiguous detach to type_as float double half bfloat16 cpu cuda int long bool requires_grad
alias identity quantize_identity zeros_like ones_like empty_like full_like rand_like randn_like
""".split()
ELEMENTWISE += ["get data", "get real"]

POOLS = [
    f"{kind}_pool{rank}d{rest}"
    for kind in ("max", "avg", "adaptive_avg", "adaptive_max", "lp", "fractional_max")
    for rank in (1, 2, 3)
    for rest in ("", "_with_indices")
]


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Register what to do with the calls of these names."""

    def register(handler: Rule) -> Rule:
        RULES.update(dict.fromkeys(names, handler))
        return handler

    return register


def unknown(trace: Trace, call: Call) -> None:
    """Freeze all that goes into a call that no rule knows."""
    reason = trace.reason("passes through an operation that is not understood")
    for tensor in call.tensors():
        trace.freeze(tensor, reason)


@rule(*INERT)
def inert(trace: Trace, call: Call) -> None:
    """Do nothing."""


# --- producers ---------------------------------------------------------------------------------


@rule("conv1d", "conv2d", "conv3d")
def conv(trace: Trace, call: Call) -> None:
    """Follow labels through a convolution: plain, grouped, or one filter a channel."""
    image, weight, bias = (call.argument(i, n) for i, n in enumerate(("input", "weight", "bias")))
    groups = call.argument(6, "groups", 1)
    channel = image.dim() - weight.dim() + 1
    reads = _reads(trace, call, image, channel)
    _count(trace, weight, call.out, channel)
    if groups > 1 and weight.shape[1] == 1:
        makes = reads.repeat_interleave(weight.shape[0] // groups)
        trace.use(weight, 0, makes, "depthwise")
    else:
        makes = trace.labels.fresh(weight.shape[0])
        if groups > 1:
            reads = _tie_groups(trace, call, reads, groups)
            _tie_groups(trace, call, makes, groups)
            _keep_two(trace, weight, 1, 2)
        trace.use(weight, 1, reads, "input")
        trace.use(weight, 0, makes, "filter")
    _finish(trace, call, weight, bias, makes, channel)


@rule("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
def conv_transpose(trace: Trace, call: Call) -> None:
    """Follow labels through a transposed convolution, whose weight is (in, out / groups, ...)."""
    image, weight, bias = (call.argument(i, n) for i, n in enumerate(("input", "weight", "bias")))
    groups = call.argument(6, "groups", 1)
    channel = image.dim() - weight.dim() + 1
    reads = _reads(trace, call, image, channel)
    _count(trace, weight, image, channel)
    if groups > 1 and weight.shape[0] == groups:
        makes = reads.repeat_interleave(weight.shape[1])
        trace.use(weight, 0, reads, "depthwise")
    else:
        makes = trace.labels.fresh(weight.shape[1] * groups)
        if groups > 1:
            _tie_groups(trace, call, reads, groups)
            _keep_two(trace, weight, 0, 2 * groups)
            _tie_groups(trace, call, makes, groups)
        trace.use(weight, 0, reads, "input")
        trace.use(weight, 1, makes[: weight.shape[1]], "filter")
    _finish(trace, call, weight, bias, makes, channel)


@rule("linear")
def linear(trace: Trace, call: Call) -> None:
    """Follow labels through a linear layer."""
    image, weight, bias = (call.argument(i, n) for i, n in enumerate(("input", "weight", "bias")))
    if weight.dim() != 2:
        return unknown(trace, call)
    reads = _reads(trace, call, image, image.dim() - 1)
    _count(trace, weight, call.out, call.out.dim() - 1)
    makes = trace.labels.fresh(weight.shape[0])
    trace.use(weight, 1, reads, "input")
    trace.use(weight, 0, makes, "filter")
    return _finish(trace, call, weight, bias, makes, call.out.dim() - 1)


@rule("matmul", "mm")
def matmul(trace: Trace, call: Call) -> None:
    """Follow labels through a product with a weight of shape (in, out); freeze any other."""
    left, right = call.argument(0, "input"), call.argument(1, "other")
    if not trace.name(right) or right.dim() != 2 or left.dim() < 2:
        return unknown(trace, call)
    reads = _reads(trace, call, left, left.dim() - 1)
    _count(trace, right, call.out, call.out.dim() - 1)
    makes = trace.labels.fresh(right.shape[1])
    trace.use(right, 0, reads, "input")
    trace.use(right, 1, makes, "filter")
    return _finish(trace, call, right, None, makes, call.out.dim() - 1)


def _reads(trace: Trace, call: Call, image: Tensor, dim: int) -> Tensor:
    twin = trace.twin(image)
    if twin is None:
        return torch.full((image.shape[dim],), UNLABELLED, dtype=torch.int32)
    return trace.labels.along(twin, dim, call.reason("shares an input channel with what cannot go"))


def _finish(
    trace: Trace, call: Call, weight: Tensor, bias: Tensor | None, makes: Tensor, dim: int
) -> None:
    if bias is not None:
        trace.use(bias, 0, makes, "scale")
    if trace.name(weight):
        trace.label(call.out, spread(makes, call.out.shape, dim))


def _count(trace: Trace, weight: Tensor, positions: Tensor, dim: int) -> None:
    name = trace.name(weight)
    if name:
        work = trace.recording.work
        work[name] = work.get(name, 0) + positions.numel() // positions.shape[dim]


def _tie_groups(trace: Trace, call: Call, labels: Tensor, groups: int) -> Tensor:
    """Tie channels of the same place in each group, so that groups stay equal; return the first."""
    table = labels.view(groups, -1)
    why = call.reason("stands in the same place of another group of a grouped convolution")
    trace.labels.tie(table, table[:1].expand(table.shape), why)
    return table[0]


def _keep_two(trace: Trace, weight: Tensor, dim: int, floor: int) -> None:
    """Keep two inputs a group: with one, a grouped convolution would look like a depthwise one."""
    name = trace.name(weight)
    if name:
        trace.recording.floors[name, dim] = floor


# --- per channel -------------------------------------------------------------------------------


@rule("batch_norm", "instance_norm", "prelu")
def per_channel(trace: Trace, call: Call) -> None:
    """Follow labels through an operation that works on each channel alone."""
    image = call.args[0] if call.args else call.kwargs["input"]
    twin = trace.twin(image)
    dim = 1 if image.dim() > 1 else 0
    if call.name == "instance_norm" and twin is not None and set(varying(twin)) - {0, 1}:
        return unknown(trace, call)
    others = [t for t in call.tensors() if t is not image and t.dim() == 1]
    if call.name == "prelu" and all(t.numel() == 1 for t in others):
        others = []
    if twin is None:
        labels = torch.full((image.shape[dim],), UNLABELLED, dtype=torch.int32)
    else:
        labels = trace.labels.along(twin, dim, call.reason("shares a channel of the norm"))
    for tensor in others:
        trace.use(tensor, 0, labels, "scale")
    if not others:
        _own_width(trace, labels)
    if twin is not None:
        trace.label(call.out, spread(labels, call.out.shape, dim))
    return None


@rule("group_norm")
def group_norm(trace: Trace, call: Call) -> None:
    """Follow labels through a group norm, whose groups go whole or not at all."""
    image, groups = call.argument(0, "input"), call.argument(1, "num_groups")
    twin = trace.twin(image)
    if twin is None:
        return None
    if groups == 1 or set(varying(twin)) - {0, 1}:
        trace.freeze(image, call.reason("a group norm takes its mean over all channels"))
        return None
    labels = trace.labels.along(twin, 1, call.reason("shares a channel of the norm"))
    table = labels.view(groups, -1)
    why = call.reason("shares a group of a group norm")
    trace.labels.tie(table, table[:, :1].expand(table.shape), why)
    weight, bias = call.argument(2, "weight"), call.argument(3, "bias")
    for tensor in (weight, bias):
        trace.use(tensor, 0, labels, "scale")
    if weight is None:
        _own_width(trace, labels)
    return trace.label(call.out, spread(labels, call.out.shape, 1))


def _own_width(trace: Trace, labels: Tensor) -> None:
    """Remember a norm module that has a width but no tensor to tell it by."""
    if trace.modules and isinstance(
        trace.modules[-1][1], (nn.modules.batchnorm._NormBase, nn.GroupNorm)
    ):
        name = trace.modules[-1][0]
        before = trace.recording.norms.setdefault(name, labels.contiguous())
        trace.labels.tie(before, labels, trace.reason(f"{name} is used more than once"))


# --- element-wise ------------------------------------------------------------------------------


@rule(*ELEMENTWISE)
def elementwise(trace: Trace, call: Call) -> None:
    """Tie the labels of all tensors position by position."""
    results = call.results()
    tensors = [t for t in call.tensors() if t.numel() > 1 or trace.twin(t) is not None]
    if call.name in ("to", "type_as"):
        tensors = tensors[:1]
    if not results and call.name != "type":
        return unknown(trace, call)  # the values go to Python
    if not results or not tensors:
        return None
    out = results[0]
    labelled = [(t, twin) for t in tensors if (twin := trace.twin(t)) is not None]
    if not labelled:
        return _pass_view(trace, tensors, out)
    if not all(_fits(t.shape, out.shape) for t in tensors):
        return unknown(trace, call)
    labelled.sort(key=lambda pair: len(varying(pair[1].broadcast_to(out.shape))), reverse=True)
    base = labelled[0][1].broadcast_to(out.shape)
    for tensor, twin in labelled[1:]:
        base = _joined(trace, call, base, tensor, twin)
    for tensor in tensors:
        if trace.twin(tensor) is None:
            _scaled(trace, call, base, tensor)
    return trace.label(out, base)


def _fits(shape: torch.Size, larger: torch.Size) -> bool:
    pairs = zip(reversed(shape), reversed(larger), strict=False)
    return len(shape) <= len(larger) and all(size in (1, full) for size, full in pairs)


def _joined(trace: Trace, call: Call, base: Tensor, tensor: Tensor, twin: Tensor) -> Tensor:
    offset = base.dim() - tensor.dim()
    for dim in varying(base):
        if base.shape[dim] > 1 and (dim < offset or tensor.shape[dim - offset] == 1):
            trace.labels.freeze(twin, call.reason("is one value for many channels"))
            return base
    other = twin.broadcast_to(base.shape)
    trace.labels.tie(base, other, call.reason("is combined with channels that cannot go"))
    if bool((core(base) < 0).any()):
        return torch.where(base < 0, other, base)
    return base


def _scaled(trace: Trace, call: Call, base: Tensor, tensor: Tensor) -> None:
    """Record a tensor without labels that is combined with one that has them."""
    offset = base.dim() - tensor.dim()
    dims = [d for d in varying(base) if d >= offset and tensor.shape[d - offset] > 1]
    if not dims:
        return
    name, elements = trace.view(tensor)
    why = call.reason("is combined with a tensor of fixed size")
    if not name or elements is None or len(dims) > 1 or len(varying(base)) > 1:
        trace.labels.freeze(base, why)
        trace.freeze(tensor, why)
        return
    labels = trace.labels.along(base, dims[0], why)
    _use_view(trace, call, name, elements.movedim(dims[0] - offset, 0), labels)


def _use_view(trace: Trace, call: Call, name: str, elements: Tensor, labels: Tensor) -> None:
    """Record the dimension of a model's tensor whose index alone decides the label."""
    source = trace.tensors[name]
    rows = elements.reshape(len(elements), -1)
    step = 1
    for dim in reversed(range(source.dim())):
        index = rows // step % source.shape[dim]
        step *= source.shape[dim]
        if len(labels) == source.shape[dim] and bool((index == index[:, :1]).all()):
            order = index[:, 0].argsort()
            if torch.equal(index[order, 0], torch.arange(len(order))):
                trace.use(source, dim, labels[order], "scale")
                return
    why = call.reason("is combined with a tensor of another layout")
    trace.labels.freeze(labels, why)
    trace.freeze(source, why)


def _pass_view(trace: Trace, tensors: Sequence[Tensor], out: Tensor) -> None:
    """Let a result stand for the model's tensor that it alone is computed from."""
    names = [trace.view(tensor) for tensor in tensors]
    if len(tensors) == 1 and names[0][0] and names[0][1] is not None and out is not tensors[0]:
        trace.set_view(out, names[0][0], names[0][1].broadcast_to(out.shape))
    elif len(tensors) > 1:
        for tensor in tensors:
            trace.freeze(tensor, trace.reason("is computed from several tensors"))


# --- along dimensions --------------------------------------------------------------------------


@rule(*POOLS, "interpolate", "upsample", "upsample_nearest", "upsample_bilinear")
def pool(trace: Trace, call: Call) -> None:
    """Follow labels through pooling or resizing of the last dimensions."""
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


@rule("pad")
def pad(trace: Trace, call: Call) -> None:
    """Follow labels through padding of dimensions in which they are constant."""
    image, widths = call.argument(0, "input"), list(call.argument(1, "pad"))
    twin = trace.twin(image)
    if twin is None:
        return None
    padded = {image.dim() - 1 - i // 2 for i, width in enumerate(widths) if width}
    if padded & set(varying(twin)):
        return unknown(trace, call)
    return trace.label(call.out, _with_sizes(twin, call.out.shape))


@rule(*"softmax log_softmax softmin cumsum cumprod normalize logcumsumexp".split())
def shaped_along(trace: Trace, call: Call) -> None:
    """Follow labels through an operation along dimensions that keeps the shape."""
    image = call.argument(0, "input")
    twin = trace.twin(image)
    if twin is None:
        return None
    dims = call.argument(2 if call.name == "normalize" else 1, "dim", 1)
    if not _is_dims(dims) or _dims(dims, image) & set(varying(twin)):
        return unknown(trace, call)
    return trace.label(call.out, twin)


@rule("layer_norm", "rms_norm")
def layer_norm(trace: Trace, call: Call) -> None:
    """Follow labels through a norm over the last dimensions, if they are constant there."""
    image, shape = call.argument(0, "input"), call.argument(1, "normalized_shape")
    twin = trace.twin(image)
    if twin is None:
        return None
    if set(range(image.dim() - len(shape), image.dim())) & set(varying(twin)):
        trace.freeze(image, call.reason("a layer norm takes its mean over all channels"))
        for tensor in call.tensors():
            trace.freeze(tensor, call.reason("belongs to a layer norm over all channels"))
        return None
    return trace.label(call.out, twin)


@rule(*"mean sum amax amin max min prod var std var_mean std_mean logsumexp nanmean nansum".split())
def reduce(trace: Trace, call: Call) -> None:
    """Follow labels through a reduction of dimensions in which they are constant."""
    image = call.argument(0, "input")
    if len(call.args) > 1 and isinstance(call.args[1], Tensor):
        return elementwise(trace, call)  # torch.max(a, b)
    twin = trace.twin(image)
    if twin is None:
        return None
    dims = call.kwargs.get("dim", call.kwargs.get("axis", call.argument(1, "dim")))
    if not _is_dims(dims) or _dims(dims, image) & set(varying(twin)):
        return unknown(trace, call)
    small = twin
    for dim in sorted(_dims(dims, image), reverse=True):
        kept = call.results()[0].dim() == image.dim()
        small = small.narrow(dim, 0, 1) if kept else small.select(dim, 0)
    for out in call.results():
        trace.label(out, small)
    return None


@rule("glu")
def glu(trace: Trace, call: Call) -> None:
    """Tie the two halves of a gated linear unit."""
    image, dim = call.argument(0, "input"), call.argument(1, "dim", -1)
    twin = trace.twin(image)
    if twin is not None:
        first, second = twin.chunk(2, dim)
        trace.labels.tie(first, second, call.reason("gates channels that cannot go"))
        trace.label(call.out, first)


def _is_dims(dims: Any) -> bool:
    if isinstance(dims, (tuple, list)):
        return bool(dims) and all(isinstance(dim, int) for dim in dims)
    return isinstance(dims, int) and not isinstance(dims, bool)


def _dims(dims: int | Iterable[int], tensor: Tensor) -> set[int]:
    return {d % tensor.dim() for d in ((dims,) if isinstance(dims, int) else dims)}


def _with_sizes(twin: Tensor, shape: torch.Size) -> Tensor:
    """Return the twin with other sizes in the dimensions in which it is constant."""
    return core(twin).expand(shape)


# --- movement ----------------------------------------------------------------------------------


@rule("view", "reshape", "flatten", "unflatten", "view_as", "reshape_as", "squeeze", "unsqueeze")
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
    if len(split) > max(1, len(varying(twin))):
        free = _free_dim(twin, moved, split)
        for dim in split:
            if dim != free:
                first = moved.narrow(dim, 0, 1).expand(moved.shape)
                trace.labels.tie(first, moved, call.reason("shares a split channel dimension"))
    return trace.label(call.out, moved)


def _free_dim(before: Tensor, after: Tensor, split: Sequence[int]) -> int:
    """Return the dimension of a split that channels may leave: the rest is taken to be fixed.

    A vector that becomes an image gets its channels in front; otherwise the larger part (58 of the
    2 x 58 of a channel shuffle) is the one that changes with the width.
    """
    if before.dim() == 2 and after.dim() in (3, 4, 5) and 1 in split:
        return 1
    return max(split, key=lambda dim: (after.shape[dim], dim))


@rule(
    *"permute transpose t swapaxes swapdims movedim moveaxis adjoint expand expand_as broadcast_to "
    "flip repeat tile repeat_interleave pixel_shuffle pixel_unshuffle channel_shuffle "
    "native_channel_shuffle atleast_1d atleast_2d atleast_3d".split(),
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
        _tie_groups(trace, call, labels, call.argument(1, "groups"))
    return trace.label(call.out, moved)


def _replayed(trace: Trace, call: Call, twin: Tensor) -> Tensor | None:
    """Return what the call makes of a twin in the place of its first tensor."""
    if call.name.startswith("get "):
        moved: Tensor = getattr(twin, call.name[4:])
        return moved
    args, kwargs = tree_map(lambda v: v.cpu() if isinstance(v, Tensor) else v, (call.args, call.kwargs))
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


#: Elements of a parameter beyond which its views are not followed, to save time.
VIEW_LIMIT = 1 << 16


@rule("cat", "concat", "concatenate", "stack", "hstack", "vstack")
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


def _tie_across(trace: Trace, first: Tensor, second: Tensor, dim: int, why: Any) -> None:
    """Tie two joined twins in the dimensions across the join, if either varies there."""
    if not (set(varying(first)) | set(varying(second))) - {dim}:
        return
    if dim in varying(first) or dim in varying(second):
        trace.labels.freeze(first, why)
        trace.labels.freeze(second, why)
        return
    trace.labels.tie(first.narrow(dim, 0, 1), second.narrow(dim, 0, 1), why)


@rule("chunk", "split", "tensor_split", "split_with_sizes")
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


@rule("getitem", "narrow", "select", "index_select", "unbind", "roll", "take_along_dim")
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
        return dims is None or bool(_dims(dims, image) & labelled)
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
