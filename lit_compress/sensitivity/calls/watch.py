"""Watch a run: find its torch calls, and which tensors each call takes from earlier ones."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from lit_compress.pruning.channels.tracing.calls import call_name, layer_calls
from lit_compress.sensitivity.calls.structure import (
    MODES,
    Call,
    Run,
    Span,
    Structure,
    Value,
    tensors_of,
)


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
