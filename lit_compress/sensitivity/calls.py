"""The torch calls of a run, and the tensors that they pass on to each other."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from lit_compress.pruning.channels.trace import call_name, layer_calls

Run = Callable[[], Any]
#: Calls that set how others work, and are never skipped.
MODES = ("set_grad_enabled", "inference_mode", "enter_autocast", "exit_autocast")


@dataclass
class Value:
    """A tensor that a call made.

    Attributes:
        born: Number of the call.
        last: Number of the last call that took it; None if none did.
        changed: Numbers of the calls that changed it in place.
        size: Its bytes.
    """

    born: int
    last: int | None = None
    changed: list[int] = field(default_factory=list)
    size: int = 0

    def crosses(self, cut: int) -> bool:
        """Tell whether it was made before a call and may be needed from there on."""
        return self.born < cut and (self.last is None or self.last >= cut)


@dataclass
class Call:
    """One torch call.

    Attributes:
        name: What it is called.
        leaves: For each leaf of its result: the number of the value, the position of the argument
            that it is (``-1 - position``), or None for what is no tensor.
    """

    name: str
    leaves: list[int | None]


@dataclass(frozen=True)
class Span:
    """The calls that a layer makes while it runs.

    Attributes:
        layer: The layer.
        start: Number of its first call.
        end: Number of the first call after it.
        result: The value that it returns, which one of its calls made.
    """

    layer: nn.Module
    start: int
    end: int
    result: int


@dataclass
class Structure:
    """The calls of a run, and which values they pass on.

    Attributes:
        calls: The calls in order.
        values: The tensors that they made.
        uses: By ``id`` of a tensor that was there before, the first call that took it.
        first_change: The first call that changed a tensor that was there before; None if none did.
        spans: Of the layers that pass no tensor on but what they return, inner ones first.
        intercepted: Whether others look at the calls too: tensors of a subclass, or another mode.
    """

    calls: list[Call]
    values: list[Value]
    uses: dict[int, int]
    first_change: int | None = None
    spans: list[Span] = field(default_factory=list)
    intercepted: bool = False

    def cut(self, tensors: Iterable[Tensor]) -> int:
        """Return the last call that all before which can be skipped when tensors have changed.

        It is the first that takes one of them, or an earlier one where a tensor that shares its
        memory with another is changed in place later, or a tensor that was there before is changed
        by a call that would be skipped. 0 stands for the whole run.
        """
        cut = min((self.uses.get(id(tensor), 0) for tensor in tensors), default=0)
        if self.first_change is not None:
            cut = min(cut, self.first_change)
        while cut in self.unsafe:
            cut -= 1
        return cut

    @cached_property
    def unsafe(self) -> frozenset[int]:
        """Calls that no run can start from: of two values in the same memory, one changes later."""
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
        """Return the spans that end before a call and lie in no other that does."""
        found: list[Span] = []
        for span in reversed(self.spans):
            if span.end <= cut and (not found or span.end <= found[-1].start):
                found.append(span)
        return found


def structure_of(run: Run) -> Structure:
    """Run a function once and return the structure of its calls."""
    watch = _Watch()
    with torch.no_grad(), layer_calls(watch.enter, watch.leave), watch:
        run()
    return Structure(
        watch.calls,
        watch.values,
        watch.uses,
        watch.first_change,
        watch.closed_spans(),
        watch.intercepted,
    )


def stored_bytes(structure: Structure, cuts: Sequence[int]) -> int:
    """Return the bytes that a recording for some cuts holds."""
    return sum(v.size for v in structure.values if any(v.crosses(cut) for cut in cuts))


class _Watch(TorchFunctionMode):
    """Notes calls, values, and what is changed in place."""

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
        """Make the call and note it."""
        given = tensors_of((args, kwargs))
        index = len(self.calls)
        self.intercepted |= bool(types) or _modes() > 0
        with torch._C.DisableTorchFunction():
            before = [t._version for t in given]
        out = func(*args, **(kwargs or {}))
        with torch._C.DisableTorchFunction():
            self._note(index, call_name(func), given, before, out)
        return out

    def enter(self, layer: nn.Module, _: Any) -> None:
        """Note that a layer begins."""
        self.intercepted |= _modes() > 1
        self._entered.append((layer, len(self.calls), _attributes(layer)))

    def leave(self, layer: nn.Module, _: Any, out: Any) -> None:
        """Note that a layer ends, and whether it could be skipped."""
        while self._entered:
            entered, start, before = self._entered.pop()
            if entered is layer:
                break
        else:
            return
        if start == len(self.calls):
            self._idle.add(layer)  # this run of it could not be told from the next
        number = self._numbers.get(id(out)) if isinstance(out, Tensor) else None
        if number is None or self.values[number].born < start or before != _attributes(layer):
            return
        watched = any(m._forward_hooks or m._forward_pre_hooks for m in layer.modules())
        if not watched and not any(call.name in MODES for call in self.calls[start:]):
            self._spans.append(Span(layer, start, len(self.calls), number))

    def closed_spans(self) -> list[Span]:
        """Return the spans in which no other tensor is made that is taken later."""
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

    def _note(
        self, index: int, name: str, given: list[Tensor], before: list[int], out: Any
    ) -> None:
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
        if not isinstance(leaf, Tensor):
            return None
        if id(leaf) in positions:
            return positions[id(leaf)]
        if id(leaf) not in self._numbers:
            self._numbers[id(leaf)] = len(self.values)
            self.values.append(Value(index, size=leaf.numel() * leaf.element_size()))
            self._alive.append(leaf)  # so that its id is not given to another
            self._versions.append(leaf._version)
        return self._numbers[id(leaf)]


def _modes() -> int:
    """Return how many modes see the next call; in the handler of one, how many others do."""
    count: int = torch._C._len_torch_function_stack()
    return count


def _attributes(layer: nn.Module) -> list[dict[str, tuple[int, int]]]:
    """Return which objects a layer and those in it hold: a new one would be missed by a skip."""
    return [
        {
            n: (id(held), len(held) if isinstance(held, (list, dict, set)) else 0)
            for n, held in vars(m).items()
        }
        for m in layer.modules()
    ]


def tensors_of(value: Any) -> list[Tensor]:
    """Return the tensors in nested containers, in order."""
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor)]
