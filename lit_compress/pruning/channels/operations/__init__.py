"""Handlers of torch operations: how each operation passes on the labels of channels.

There are few kinds of operations. *Producers* (conv, linear) read the labels of their input and
make new labels. *Per-channel* operations (norms) pass labels on. *Element-wise* operations tie the
labels of their inputs position by position. *Reductions* and pools pass labels on if the labels are
constant along the reduced dimensions. *Movement* operations (view, cat, chunk ...) run on the twin
itself. *Attention* ties what belongs to a head. Calls on the model's *own* tensors alone may
compute a weight, which is followed to its parameters. All other operations freeze the labels, with
a reason.
"""

from lit_compress.pruning.channels.operations import (
    attention,
    elementwise,
    movement,
    norms,
    producers,
    reductions,
    splits,
)
from lit_compress.pruning.channels.operations.own import own
from lit_compress.pruning.channels.operations.registry import HANDLERS, unknown
from lit_compress.pruning.channels.operations.splits import settle

__all__ = [
    "HANDLERS",
    "attention",
    "elementwise",
    "movement",
    "norms",
    "own",
    "producers",
    "reductions",
    "settle",
    "splits",
    "unknown",
]
