"""The table of handlers by operation, and the handler of all other operations."""

from __future__ import annotations

from collections.abc import Callable

from lit_compress.pruning.channels.tracing.trace import Call, Trace

Handler = Callable[[Trace, Call], None]
HANDLERS: dict[str, Handler] = {}

_QUESTIONS = """
size dim numel nelement ndimension stride storage_offset element_size get_device is_contiguous
is_floating_point is_complex is_signed is_nested is_inference is_same_size has_names len hash
repr format str data_ptr is_sparse is_quantized is_pinned result_type can_cast promote_types
new_empty new_zeros new_ones new_full new_tensor
"""
_PROPERTIES = """
shape dtype device ndim layout requires_grad is_leaf grad_fn is_cuda is_cpu is_mps is_sparse
is_quantized is_nested names itemsize nbytes _version is_meta output_nr
"""
#: Calls that ask about a tensor without reading its values.
INERT = (*_QUESTIONS.split(), *(f"get {name}" for name in _PROPERTIES.split()))


def handles(*names: str) -> Callable[[Handler], Handler]:
    """Register a function as the handler of the calls with these names."""

    def register(handler: Handler) -> Handler:
        HANDLERS.update(dict.fromkeys(names, handler))
        return handler

    return register


def unknown(trace: Trace, call: Call) -> None:
    """Freeze the arguments of a call that has no handler, or that its handler cannot follow."""
    reason = trace.reason("passes through an operation that is not supported")
    for tensor in call.tensors():
        trace.freeze(tensor, reason)


@handles(*INERT)
def inert(trace: Trace, call: Call) -> None:
    """Do nothing."""
