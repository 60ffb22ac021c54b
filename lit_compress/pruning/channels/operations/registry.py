"""The table of operations, and what happens to those that are not in it."""

from __future__ import annotations

from collections.abc import Callable

from lit_compress.pruning.channels.trace import Call, Trace

Handler = Callable[[Trace, Call], None]
HANDLERS: dict[str, Handler] = {}

_QUESTIONS = """
size dim numel nelement ndimension stride storage_offset element_size get_device is_contiguous
is_floating_point is_complex is_signed is_nested is_inference is_same_size has_names len hash
repr format str data_ptr is_sparse is_quantized is_pinned result_type can_cast promote_types
"""
_PROPERTIES = """
shape dtype device ndim layout requires_grad is_leaf grad_fn is_cuda is_cpu is_mps is_sparse
is_quantized is_nested names itemsize nbytes _version is_meta output_nr
"""
#: Ask about a tensor without looking at its values.
INERT = (*_QUESTIONS.split(), *(f"get {name}" for name in _PROPERTIES.split()))


def handles(*names: str) -> Callable[[Handler], Handler]:
    """Register what to do with the calls of these names."""

    def register(handler: Handler) -> Handler:
        HANDLERS.update(dict.fromkeys(names, handler))
        return handler

    return register


def unknown(trace: Trace, call: Call) -> None:
    """Freeze all that goes into a call that no rule knows."""
    reason = trace.reason("passes through an operation that is not understood")
    for tensor in call.tensors():
        trace.freeze(tensor, reason)


@handles(*INERT)
def inert(trace: Trace, call: Call) -> None:
    """Do nothing."""
