"""What each torch operation does with the labels of channels.

There are few kinds. *Producers* (conv, linear) read the labels of their input and make new ones.
*Per-channel* operations (norms) pass them. *Element-wise* operations tie labels position by
position. *Reductions* and pools pass labels that are constant along them. *Movement* (view, cat,
chunk ...) is run on the twin itself. Everything else freezes its labels, with a reason.
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
