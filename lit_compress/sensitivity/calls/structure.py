"""The torch calls of a run as data: which tensors each takes from earlier ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

#: A function whose torch calls are looked at, such as the validation step on one batch.
Run = Callable[[], Any]
#: Calls that change how later calls work. They are never skipped.
MODES = ("set_grad_enabled", "inference_mode", "enter_autocast", "exit_autocast")


@dataclass
class Value:
    """A tensor that a call returned.

    Attributes:
        born: Number of the call that returned it.
        last: Number of the last call that took it; None if no call did.
        changed: Numbers of the calls that changed it in place, rising.
        size: Its size in bytes.
    """

    born: int
    last: int | None = None
    changed: list[int] = field(default_factory=list)
    size: int = 0

    def crosses(self, cut: int) -> bool:
        """Tell whether a run that starts at a call may need this tensor.

        Args:
            cut: Number of the first call of the run.
        """
        return self.born < cut and (self.last is None or self.last >= cut)


@dataclass
class Call:
    """One torch call.

    Attributes:
        name: Name of the torch function.
        leaves: One entry for each leaf of the result: the number of the value, or
            ``-1 - position`` if the call returned the tensor argument at that position, or None if
            the leaf is not a tensor.
    """

    name: str
    leaves: list[int | None]


@dataclass(frozen=True)
class Span:
    """The torch calls in one forward of a layer.

    Attributes:
        layer: The layer.
        start: Number of its first call.
        end: Number of the first call after the layer.
        result: Number of the value that the layer returns.
    """

    layer: nn.Module
    start: int
    end: int
    result: int


@dataclass
class Structure:
    """The calls of a run, and the tensors that they pass to each other.

    Attributes:
        calls: The calls in order.
        values: The tensors that the calls returned.
        uses: The first call that took each tensor from outside the run, by the tensor's ``id``.
        first_change: The first call that changed a tensor from outside the run in place; None if
            no call did.
        spans: Forwards of layers that can be skipped as a whole: later calls use no tensor of
            theirs but the returned one. Inner layers come first.
        intercepted: Whether other code sees the calls too: a tensor subclass, or another
            ``TorchFunctionMode``.
    """

    calls: list[Call]
    values: list[Value]
    uses: dict[int, int]
    first_change: int | None = None
    spans: list[Span] = field(default_factory=list)
    intercepted: bool = False

    def cut(self, tensors: Iterable[Tensor]) -> int:
        """Return the latest call from which a run with changed tensors can start.

        This is the first call that takes one of the tensors. It is an earlier one where the skipped
        calls would change a tensor from outside the run, or where the start is in
        :attr:`unsafe`.

        Args:
            tensors: The tensors from outside the run that get other values.

        Returns:
            The number of the call; 0 means that the whole run is needed.
        """
        cut = min((self.uses.get(id(tensor), 0) for tensor in tensors), default=0)
        if self.first_change is not None:
            cut = min(cut, self.first_change)
        while cut in self.unsafe:
            cut -= 1
        return cut

    @cached_property
    def unsafe(self) -> frozenset[int]:
        """Calls from which no run can start: two values share memory, and one changes later.

        A recording keeps each value on its own, so a change of one would not reach the other.
        """
        together: dict[int, list[Value]] = {}
        for value in self.values:
            for call in value.changed:
                together.setdefault(call, []).append(value)
        return frozenset(
            cut
            for call, values in together.items()
            if len(values) > 1
            for cut in range(min(value.born for value in values) + 1, call + 1)
            if sum(value.crosses(cut) for value in values) > 1
        )

    def outer_spans(self, cut: int) -> list[Span]:
        """Return the outermost spans that end before a call, last one first."""
        found: list[Span] = []
        for span in reversed(self.spans):
            if span.end <= cut and (not found or span.end <= found[-1].start):
                found.append(span)
        return found


def stored_bytes(structure: Structure, cuts: Sequence[int]) -> int:
    """Return the size in bytes of a recording of one run.

    Args:
        structure: The calls of the run.
        cuts: The calls from which it is to be run again.
    """
    return sum(v.size for v in structure.values if any(v.crosses(cut) for cut in cuts))


def tensors_of(value: Any) -> list[Tensor]:
    """Return the tensors in nested containers, in order.

    Example:
        >>> import torch
        >>> [tuple(t.shape) for t in tensors_of({"a": [torch.zeros(2), "no"], "b": torch.ones(3)})]
        [(2,), (3,)]
    """
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor)]
