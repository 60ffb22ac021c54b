"""Handlers of torch operations: how each operation passes on the labels of channels.

There are few kinds of operations. *Producers* (conv, linear) read the labels of their input and
make new labels. *Per-channel* operations (norms) pass labels on. *Element-wise* operations tie the
labels of their inputs position by position. *Reductions* and pools pass labels on if the labels are
constant along the reduced dimensions. *Movement* operations (view, cat, chunk ...) run on the twin
itself. All other operations freeze the labels, with a reason.
"""

from lit_compress.pruning.channels.operations import (
    elementwise,
    movement,
    norms,
    producers,
    reductions,
)
from lit_compress.pruning.channels.operations.registry import HANDLERS, unknown

__all__ = ["HANDLERS", "elementwise", "movement", "norms", "producers", "reductions", "unknown"]
