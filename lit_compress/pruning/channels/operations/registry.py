"""The table of handlers by operation, and the handler of all other operations."""

from __future__ import annotations

from collections.abc import Callable

from lit_compress.pruning.channels.tracing.questions import INERT
from lit_compress.pruning.channels.tracing.records import Call
from lit_compress.pruning.channels.tracing.trace import Trace

Handler = Callable[[Trace, Call], None]
HANDLERS: dict[str, Handler] = {}


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
