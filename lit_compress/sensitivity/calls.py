"""Find the torch calls of a run, and which tensors each call takes from earlier ones."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from lit_compress.pruning.channels.tracing.calls import call_name, layer_calls

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


def structure_of(run: Run) -> Structure:
    """Run a function once and return the structure of its calls.

    Args:
        run: The function. Gradients are off while it runs.
    """
    watch = _Watch()
    with torch.no_grad(), layer_calls(watch.enter, watch.leave), watch:
        run()
    return Structure(
        calls=watch.calls,
        values=watch.values,
        uses=watch.uses,
        first_change=watch.first_change,
        spans=watch.closed_spans(),
        intercepted=watch.intercepted,
    )


def stored_bytes(structure: Structure, cuts: Sequence[int]) -> int:
    """Return the size in bytes of a recording of one run.

    Args:
        structure: The calls of the run.
        cuts: The calls from which it is to be run again.
    """
    return sum(v.size for v in structure.values if any(v.crosses(cut) for cut in cuts))


class _Watch(TorchFunctionMode):
    """Records calls, values and in-place changes while a function runs."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Call] = []
        self.values: list[Value] = []
        self.uses: dict[int, int] = {}
        self.first_change: int | None = None
        self.intercepted = False
        self._spans: list[Span] = []
        self._idle: set[nn.Module] = set()
        self._entered: list[tuple[nn.Module, int, Any]] = []
        self._numbers: dict[int, int] = {}
        self._alive: list[Tensor] = []
        self._versions: list[int] = []

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Collection[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Make the call and record it."""
        given = tensors_of((args, kwargs))
        index = len(self.calls)
        self.intercepted |= bool(types) or _modes() > 0
        with torch._C.DisableTorchFunction():
            before = [t._version for t in given]
        out = func(*args, **(kwargs or {}))
        with torch._C.DisableTorchFunction():
            self._record(index, call_name(func), given, before, out)
        return out

    def enter(self, layer: nn.Module, _: Any) -> None:
        """Record that the forward of a layer begins."""
        self.intercepted |= _modes() > 1
        self._entered.append((layer, len(self.calls), _attributes(layer)))

    def leave(self, layer: nn.Module, _: Any, out: Any) -> None:
        """Record that the forward of a layer ends, with a span if it could be skipped."""
        while self._entered:
            entered, start, before = self._entered.pop()
            if entered is layer:
                break
        else:
            return
        if start == len(self.calls):
            # A forward without calls: a replay could not tell it from the layer's next forward.
            self._idle.add(layer)
        number = self._numbers.get(id(out)) if isinstance(out, Tensor) else None
        if number is None or self.values[number].born < start or before != _attributes(layer):
            return
        watched = any(m._forward_hooks or m._forward_pre_hooks for m in layer.modules())
        if not watched and not any(call.name in MODES for call in self.calls[start:]):
            self._spans.append(Span(layer, start, len(self.calls), number))

    def closed_spans(self) -> list[Span]:
        """Return the spans of which later calls use nothing but the result."""
        return [
            span
            for span in self._spans
            if span.layer not in self._idle
            and all(
                value.last is None or value.last < span.end
                for number, value in enumerate(self.values)
                if span.start <= value.born < span.end and number != span.result
            )
        ]

    def _record(
        self, index: int, name: str, given: list[Tensor], before: list[int], out: Any
    ) -> None:
        """Record a call.

        Args:
            index: Number of the call.
            name: Name of the torch function.
            given: The tensors among its arguments.
            before: Their versions before the call; torch counts in-place changes by them.
            out: What it returned.
        """
        for tensor, version in zip(given, before, strict=True):
            number = self._numbers.get(id(tensor))
            if number is None:
                self.uses.setdefault(id(tensor), index)
                if self.first_change is None and tensor._version != version:
                    self.first_change = index
            else:
                self.values[number].last = index
        for number, tensor in enumerate(self._alive):
            if tensor._version != self._versions[number]:
                self._versions[number] = tensor._version
                self.values[number].changed.append(index)
        positions = {id(tensor): -1 - place for place, tensor in enumerate(given)}
        leaves = [self._leaf(index, leaf, positions) for leaf in tree_leaves(out)]
        self.calls.append(Call(name, leaves))

    def _leaf(self, index: int, leaf: Any, positions: Mapping[int, int]) -> int | None:
        """Return the entry in ``Call.leaves`` for a leaf of a result."""
        if not isinstance(leaf, Tensor):
            return None
        if id(leaf) in positions:
            return positions[id(leaf)]
        if id(leaf) not in self._numbers:
            self._numbers[id(leaf)] = len(self.values)
            self.values.append(Value(index, size=leaf.numel() * leaf.element_size()))
            self._alive.append(leaf)  # so that no other object gets its id
            self._versions.append(leaf._version)
        return self._numbers[id(leaf)]


def _modes() -> int:
    """Return how many TorchFunctionModes see the next call; within a mode, how many others do."""
    count: int = torch._C._len_torch_function_stack()
    return count


def _attributes(layer: nn.Module) -> list[dict[str, tuple[int, int]]]:
    """Return the identities and lengths of the attributes of a layer and its children.

    If a forward changes them, it has an effect that a skip would lose.
    """
    return [
        {
            n: (id(held), len(held) if isinstance(held, (list, dict, set)) else 0)
            for n, held in vars(m).items()
        }
        for m in layer.modules()
    ]


def tensors_of(value: Any) -> list[Tensor]:
    """Return the tensors in nested containers, in order.

    Example:
        >>> import torch
        >>> [tuple(t.shape) for t in tensors_of({"a": [torch.zeros(2), "no"], "b": torch.ones(3)})]
        [(2,), (3,)]
    """
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor)]
