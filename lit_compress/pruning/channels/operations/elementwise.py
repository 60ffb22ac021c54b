"""Element-wise operations: the labels of their tensors are tied position by position."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lit_compress.pruning.channels.operations.registry import handles, unknown
from lit_compress.pruning.channels.tracing.labels import core, varying
from lit_compress.pruning.channels.tracing.records import Call
from lit_compress.pruning.channels.tracing.trace import Trace

_NAMES = """

relu relu6 hardtanh hardswish hardsigmoid sigmoid logsigmoid silu gelu tanh tanhshrink elu celu selu
leaky_relu rrelu softplus softsign softshrink hardshrink threshold mish dropout dropout1d dropout2d
dropout3d alpha_dropout feature_alpha_dropout feature_dropout clamp clip clamp_min clamp_max neg
negative pos positive abs absolute pow rpow sqrt rsqrt square exp exp2 expm1 log log2 log10 log1p
reciprocal sign sgn sin cos tan asin acos atan sinh cosh erf erfc round floor ceil trunc frac
nan_to_num isnan isinf isfinite logical_not bitwise_not invert
add radd iadd sub rsub isub subtract mul rmul imul multiply div rdiv idiv truediv rtruediv itruediv
divide true_divide floordiv rfloordiv ifloordiv floor_divide mod rmod fmod remainder maximum minimum
fmax fmin atan2 hypot where masked_fill lerp addcmul addcdiv eq ne lt le gt ge logical_and
logical_or logical_xor and or xor isclose copysign logaddexp xlogy
clone contiguous detach to type_as float double half bfloat16 cpu cuda int long bool requires_grad
alias identity quantize_identity zeros_like ones_like empty_like full_like rand_like randn_like
"""
ELEMENTWISE = (*_NAMES.split(), "get data", "get real")


@handles(*ELEMENTWISE)
def elementwise(trace: Trace, call: Call) -> None:
    """Tie the labels of all tensors of the call position by position."""
    results = call.results()
    tensors = [t for t in call.tensors() if t.numel() > 1 or trace.twin(t) is not None]
    if call.name in ("to", "type_as"):
        tensors = tensors[:1]
    if not results and call.name != "type":
        return unknown(trace, call)  # the values become Python numbers
    if not results or not tensors:
        return None
    out = results[0]
    labelled = [(t, twin) for t in tensors if (twin := trace.twin(t)) is not None]
    if not labelled:
        return None
    if len(tensors) == 1 and tensors[0].shape == out.shape:
        return trace.pass_on(out, labelled[0][1])
    if not all(_broadcasts(t.shape, out.shape) for t in tensors):
        return unknown(trace, call)
    labelled.sort(key=lambda pair: len(varying(pair[1].broadcast_to(out.shape))), reverse=True)
    base = labelled[0][1].broadcast_to(out.shape)
    for tensor, twin in labelled[1:]:
        base = _tie_twins(trace, call, base, tensor, twin)
    for tensor in tensors:
        if trace.twin(tensor) is None:
            base = _with_unlabelled(trace, call, base, tensor)
    return trace.label(out, base)


def _broadcasts(shape: torch.Size, larger: torch.Size) -> bool:
    """Tell whether a shape can be broadcast to a larger one."""
    pairs = zip(reversed(shape), reversed(larger), strict=False)
    return len(shape) <= len(larger) and all(size in (1, full) for size, full in pairs)


def _tie_twins(trace: Trace, call: Call, base: Tensor, tensor: Tensor, twin: Tensor) -> Tensor:
    """Tie the twin of a tensor to a twin of the result's shape; return the twin of both."""
    offset = base.dim() - tensor.dim()
    dims = varying(base)
    single = {dim for dim in dims if dim < offset or tensor.shape[dim - offset] == 1}
    if single:
        why = call.reason("is one value for many channels")
        if single == set(dims):
            trace.labels.freeze(twin, why)
            return base
        base = trace.labels.collapse(base, single, why)  # one value for each head
    other = twin.broadcast_to(base.shape)
    trace.labels.tie(base, other, call.reason("is combined with channels that cannot be removed"))
    if bool((core(base) < 0).any()):
        return torch.where(base < 0, other, base)
    return base


def _with_unlabelled(trace: Trace, call: Call, base: Tensor, tensor: Tensor) -> Tensor:
    """Record the use of a tensor without labels with one that has labels; return their twin.

    A fixed value for each index of a head (a rotary embedding) leaves whole heads.
    """
    offset = base.dim() - tensor.dim()
    dims = [d for d in varying(base) if d >= offset and tensor.shape[d - offset] > 1]
    if not dims:
        return base
    why = call.reason("is combined with a tensor of fixed size")
    trained = any(isinstance(trace.tensors[n], nn.Parameter) for n in trace.sources(tensor))
    if not trained and set(varying(base)) - set(dims):
        return trace.labels.collapse(base, dims, why)
    if not trace.sources(tensor) or len(dims) > 1:
        trace.labels.freeze(base, why)
        trace.freeze(tensor, why)
        return base
    labels = trace.labels.along(base, dims[0], why)
    trace.use(tensor, dims[0] - offset, labels, "scale")
    return base
