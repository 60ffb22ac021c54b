"""Run a function again from one of its torch calls; recorded results stand in for earlier calls."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_unflatten

from lit_compress.attributes import replaced_attributes
from lit_compress.errors import ReplayError
from lit_compress.pruning.channels.tracing.calls import call_name
from lit_compress.sensitivity.calls.structure import MODES, Call, Run, Span, Structure, tensors_of

#: Tensors by the number of the value, and by how often it was changed in place before.
Stored = dict[tuple[int, int], Tensor]


@dataclass
class Recording:
    """The results of a run's calls that later runs need.

    Attributes:
        results: The result of each call, with None in place of tensors.
        states: The kept tensors, by value and number of in-place changes before.
        stand_ins: For each value, a tensor of its shape and type, in case that code asks for them.
    """

    results: list[Any]
    states: Stored
    stand_ins: dict[int, Tensor]


def record(run: Run, structure: Structure, cuts: Sequence[int]) -> Recording:
    """Run a function once and keep the tensors that a run from some of its calls needs.

    Args:
        run: The function. It must make the calls of ``structure``.
        structure: The structure of the same function, perhaps found on other data.
        cuts: Numbers of the calls from which :func:`replay` is to start.

    Raises:
        ReplayError: If the function makes other calls than ``structure`` has.
    """
    keeper = _Record(structure, cuts)
    with torch.no_grad(), keeper:
        run()
    return Recording(keeper.results, keeper.states, keeper.stand_ins)


def replay(run: Run, structure: Structure, recording: Recording, cut: int) -> Any:
    """Run a function with recorded results in place of all calls before one of them.

    Args:
        run: The function. Only calls from ``cut`` on may give other results than when recorded.
        structure: The calls of the function.
        recording: Their results, recorded with ``cut`` among the cuts.
        cut: Number of the first call that is made.

    Returns:
        What the function returns.

    Raises:
        ReplayError: If the function makes other calls, fails, or returns a tensor that was not
            kept. A run of the whole function shows whether the function itself is at fault.
    """
    mode = _Replay(structure, recording, cut)
    try:
        with torch.no_grad(), mode.skipped_layers(), mode:
            out = run()
    except ReplayError:
        raise
    except Exception as error:  # the stand-ins of tensors that were not kept can fail in any way
        raise ReplayError(f"a run from call {cut} on fails ({error})") from error
    if any(tensor.is_meta for tensor in tensors_of(out)):
        raise ReplayError("it returns a tensor that was not kept, as no call took it")
    return out


class _Follow(TorchFunctionMode):
    """Counts the calls of a run and checks them against a structure."""

    def __init__(self, structure: Structure) -> None:
        super().__init__()
        self.structure = structure
        self.index = -1

    def step(self, func: Callable[..., Any]) -> Call:
        """Count a call and return its record.

        Raises:
            ReplayError: If the structure has another call at this place.
        """
        self.index += 1
        name = _name(func)
        calls = self.structure.calls
        if self.index >= len(calls) or calls[self.index].name != name:
            raise ReplayError(
                f"call {self.index} is {name}, but was "
                f"{calls[self.index].name if self.index < len(calls) else 'none'} before: the "
                "forward makes other torch calls each time"
            )
        return calls[self.index]


class _Record(_Follow):
    """Keeps the results of calls that later runs need."""

    def __init__(self, structure: Structure, cuts: Sequence[int]) -> None:
        super().__init__(structure)
        self.results: list[Any] = []
        self.states: Stored = {}
        self.stand_ins: dict[int, Tensor] = {}
        self._cuts = sorted(set(cuts))
        self._held: dict[int, Tensor] = {}
        self._changing: dict[int, list[int]] = {}
        for number, value in enumerate(structure.values):
            for call in value.changed:
                self._changing.setdefault(call, []).append(number)

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Collection[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Make the call and keep the part of its result that later runs need."""
        call = self.step(func)
        out = func(*args, **(kwargs or {}))
        with torch._C.DisableTorchFunction():
            leaves, spec = tree_flatten(out)
            if len(leaves) != len(call.leaves):
                raise ReplayError(f"{call.name} returns another number of tensors each time")
            kept = [
                self._keep(leaf, number) for leaf, number in zip(leaves, call.leaves, strict=True)
            ]
            self.results.append(tree_unflatten(kept, spec))
            for number in self._changing.get(self.index, ()):
                self._store(number)
        return out

    def _keep(self, leaf: Any, number: int | None) -> Any:
        """Store a tensor if a run from a cut needs it; return other leaves for ``results``."""
        if not isinstance(leaf, Tensor):
            return leaf
        if number is not None and number >= 0 and number not in self.stand_ins:
            if any(self.structure.values[number].crosses(cut) for cut in self._cuts):
                self._held[number] = leaf
                self._store(number)
            self.stand_ins[number] = _stand_in(leaf)
        return None

    def _store(self, number: int) -> None:
        """Store the present content of a value, if a run may start before its next change."""
        if number not in self._held:
            return
        value = self.structure.values[number]
        state = sum(call <= self.index for call in value.changed)
        until = value.changed[state] if state < len(value.changed) else None
        after = [cut for cut in self._cuts if cut > self.index]
        if any(until is None or cut <= until for cut in after):
            tensor = self._held[number]
            self.states[number, state] = tensor if until is None else tensor.clone()


class _Replay(_Follow):
    """Returns recorded results for the calls before a cut."""

    def __init__(self, structure: Structure, recording: Recording, cut: int) -> None:
        super().__init__(structure)
        self._recording = recording
        self._cut = cut
        self._off = ExitStack()

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Collection[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Make the call, or return its recorded result."""
        if self.index + 1 >= self._cut:
            if not self.structure.intercepted:  # nobody needs to see the calls from here on
                self._off.enter_context(torch._C.DisableTorchFunction())
            return func(*args, **(kwargs or {}))
        call = self.step(func)
        if call.name in MODES:
            return func(*args, **(kwargs or {}))
        result = self._recording.results[self.index]
        if result is None and len(call.leaves) == 1:
            return self._leaf(call.leaves[0], result, args, kwargs)
        if not any(number is not None for number in call.leaves):
            return result
        leaves, spec = tree_flatten(result, is_leaf=lambda leaf: leaf is None)
        found = [
            self._leaf(number, leaf, args, kwargs)
            for leaf, number in zip(leaves, call.leaves, strict=True)
        ]
        return tree_unflatten(found, spec)

    def __exit__(self, *given: Any) -> None:
        """End the block."""
        self._off.close()
        super().__exit__(*given)  # type: ignore[no-untyped-call]

    @contextmanager
    def skipped_layers(self) -> Iterator[None]:
        """Skip the whole forward of layers that end before the cut, until the end of the block."""
        spans: dict[nn.Module, dict[int, Span]] = {}
        for span in self.structure.outer_spans(self._cut):
            spans.setdefault(span.layer, {})[span.start] = span
        with ExitStack() as stack:
            for layer, own in spans.items():
                forward = self._skipping(layer.forward, own)
                stack.enter_context(replaced_attributes(layer, forward=forward))
            yield

    def _skipping(
        self, forward: Callable[..., Any], spans: Mapping[int, Span]
    ) -> Callable[..., Any]:
        """Return a forward that returns the recorded result where a span of the layer starts."""

        def skipping(*args: Any, **kwargs: Any) -> Any:
            span = spans.get(self.index + 1)
            if span is None:
                return forward(*args, **kwargs)
            self.index = span.end - 1
            return self._value(span.result)

        return skipping

    def _leaf(self, number: int | None, leaf: Any, args: Any, kwargs: Any) -> Any:
        """Return a leaf of a recorded result: a value, one of the arguments, or the leaf itself."""
        if number is None:
            return leaf
        if number >= 0:
            return self._value(number)
        return tensors_of((args, kwargs))[-1 - number]

    def _value(self, number: int) -> Tensor:
        """Return a value as it was when the call of the cut began, or its stand-in."""
        value = self.structure.values[number]
        state = sum(call < self._cut for call in value.changed)
        tensor = self._recording.states.get((number, state))
        if tensor is None:
            return self._recording.stand_ins[number]
        if state == len(value.changed):
            return tensor
        with torch._C.DisableTorchFunction():
            return tensor.clone()  # calls after the cut change it in place


_name = lru_cache(maxsize=4096)(call_name)


def _stand_in(tensor: Tensor) -> Tensor:
    """Return a tensor of the same shape and type without data: nothing can be computed from it."""
    if not tensor.is_floating_point() and tensor.numel() <= 64:
        return tensor  # code may read small whole numbers, such as a length
    return torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")
