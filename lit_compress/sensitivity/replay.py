"""Running a function again from one of its torch calls on: what came before is remembered."""

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
from lit_compress.pruning.channels.trace import call_name
from lit_compress.sensitivity.calls import MODES, Call, Run, Span, Structure, tensors_of

Stored = dict[tuple[int, int], Tensor]


@dataclass
class Recording:
    """What a run's calls gave, as far as it is needed later.

    Attributes:
        results: For each call, its result, with None for tensors.
        states: By value and number of changes so far, the tensor.
        stand_ins: By value, a tensor of its shape.
    """

    results: list[Any]
    states: Stored
    stand_ins: dict[int, Tensor]


def record(run: Run, structure: Structure, cuts: Sequence[int]) -> Recording:
    """Run a function once and keep what is needed to run it again from some of its calls.

    Args:
        run: The function; it must make the calls of the structure.
        structure: Of a run of the same function, perhaps on other data.
        cuts: The calls from which it is to be run again.

    Raises:
        ReplayError: If it makes other calls.
    """
    keeper = _Record(structure, cuts)
    with torch.no_grad(), keeper:
        run()
    return Recording(keeper.results, keeper.states, keeper.stand_ins)


def replay(run: Run, structure: Structure, recording: Recording, cut: int) -> Any:
    """Run a function, skipping all calls before one of them.

    Args:
        run: The function, of which only what comes from that call on may give something else.
        structure: Its calls.
        recording: What they gave.
        cut: The call from which it is run.

    Returns:
        What it returns.

    Raises:
        ReplayError: If it makes other calls, or fails.
    """
    mode = _Replay(structure, recording, cut)
    try:
        with torch.no_grad(), mode.passing_over(), mode:
            out = run()
    except ReplayError:
        raise
    except Exception as error:  # with what was not kept, anything may fail: a whole run will tell
        raise ReplayError(f"a run from call {cut} on fails ({error})") from error
    if any(tensor.is_meta for tensor in tensors_of(out)):
        raise ReplayError("it returns a tensor that no call took before")
    return out


class _Follow(TorchFunctionMode):
    """Counts calls, and makes sure that they are those of a structure."""

    def __init__(self, structure: Structure) -> None:
        super().__init__()
        self.structure = structure
        self.index = -1

    def step(self, func: Callable[..., Any]) -> Call:
        self.index += 1
        name = _name(func)
        calls = self.structure.calls
        if self.index >= len(calls) or calls[self.index].name != name:
            raise ReplayError(
                f"call {self.index} is {name}, and was "
                f"{calls[self.index].name if self.index < len(calls) else 'none'} before: the "
                "forward makes other calls each time"
            )
        return calls[self.index]


class _Record(_Follow):
    """Keeps the results of calls that are needed later."""

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
        """Make the call and keep what is needed of its result."""
        call = self.step(func)
        out = func(*args, **(kwargs or {}))
        with torch._C.DisableTorchFunction():
            leaves, spec = tree_flatten(out)
            if len(leaves) != len(call.leaves):
                raise ReplayError(f"{call.name} gives another number of tensors each time")
            kept = [
                self._keep(leaf, number) for leaf, number in zip(leaves, call.leaves, strict=True)
            ]
            self.results.append(tree_unflatten(kept, spec))
            for number in self._changing.get(self.index, ()):
                self._store(number)
        return out

    def _keep(self, leaf: Any, number: int | None) -> Any:
        if not isinstance(leaf, Tensor):
            return leaf
        if number is not None and number >= 0 and number not in self.stand_ins:
            if any(self.structure.values[number].crosses(cut) for cut in self._cuts):
                self._held[number] = leaf
                self._store(number)
            self.stand_ins[number] = _stand_in(leaf)
        return None

    def _store(self, number: int) -> None:
        """Keep the state that a value has now, if a run may start before its next change."""
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
    """Gives recorded results for the calls before a cut."""

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
        """Make the call, or return what it gave before."""
        if self.index + 1 >= self._cut:
            if not self.structure.intercepted:  # from here on, no call need come by
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
    def passing_over(self) -> Iterator[None]:
        """Have the layers that are done before the cut return what they gave, within the block."""
        spans: dict[nn.Module, dict[int, Span]] = {}
        for span in self.structure.outer_spans(self._cut):
            spans.setdefault(span.layer, {})[span.start] = span
        with ExitStack() as stack:
            for layer, own in spans.items():
                forward = self._passing(layer.forward, own)
                stack.enter_context(replaced_attributes(layer, forward=forward))
            yield

    def _passing(
        self, forward: Callable[..., Any], spans: Mapping[int, Span]
    ) -> Callable[..., Any]:
        def passed(*args: Any, **kwargs: Any) -> Any:
            span = spans.get(self.index + 1)
            if span is None:
                return forward(*args, **kwargs)
            self.index = span.end - 1
            return self._value(span.result)

        return passed

    def _leaf(self, number: int | None, leaf: Any, args: Any, kwargs: Any) -> Any:
        if number is None:
            return leaf
        if number >= 0:
            return self._value(number)
        return tensors_of((args, kwargs))[-1 - number]

    def _value(self, number: int) -> Tensor:
        value = self.structure.values[number]
        state = sum(call < self._cut for call in value.changed)
        tensor = self._recording.states.get((number, state))
        if tensor is None:
            return self._recording.stand_ins[number]
        if state == len(value.changed):
            return tensor
        with torch._C.DisableTorchFunction():
            return tensor.clone()  # it is changed later


_name = lru_cache(maxsize=4096)(call_name)


def _stand_in(tensor: Tensor) -> Tensor:
    """Return a tensor of the same shape and type that holds nothing, so that no sum takes it."""
    if not tensor.is_floating_point() and tensor.numel() <= 64:
        return tensor  # the code may look at single numbers
    return torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")
