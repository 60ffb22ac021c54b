"""Running a function again from one of its torch calls on: what came before is remembered."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_unflatten

from lit_compress.errors import ReplayError
from lit_compress.pruning.calls import Call, Run, Structure, tensors_of
from lit_compress.pruning.trace import call_name

#: Attribute of tensors that stand for others which are not kept.
MARK = "_lit_compress_stand_in"
#: Calls that set how others work, and are never skipped.
MODES = ("set_grad_enabled", "inference_mode", "enter_autocast", "exit_autocast")


Stored = dict[tuple[int, int], Tensor]


@dataclass
class Recording:
    """What a run's calls gave, as far as it is needed later.

    Attributes:
        results: For each call, its result: tensors that are not needed stand-ins of their shape.
        states: By value and number of changes so far, the tensor.
        stand_ins: ``id`` of the stand-ins among the results.
    """

    results: list[Any]
    states: Stored
    stand_ins: set[int]


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
        ReplayError: If it makes other calls.
    """
    with torch.no_grad(), _Replay(structure, recording, cut):
        return run()


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
        self.stand_ins: set[int] = set()
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
        if number is None or number < 0 or not isinstance(leaf, Tensor):
            return None if isinstance(leaf, Tensor) else leaf
        if self.structure.values[number].born == self.index:
            if any(self.structure.values[number].crosses(cut) for cut in self._cuts):
                self._held[number] = leaf
                self._store(number)
            stand_in = _stand_in(leaf)
            if is_stand_in(stand_in):
                self.stand_ins.add(id(stand_in))
            return stand_in
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

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Collection[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Make the call, or return what it gave before."""
        if self.index + 1 >= self._cut:
            self.index += 1
            if self._takes_stand_in((*args, *kwargs.values()) if kwargs else args):
                raise ReplayError(f"{_name(func)} takes a tensor that no call took before")
            return func(*args, **(kwargs or {}))
        call = self.step(func)
        if call.name in MODES:
            return func(*args, **(kwargs or {}))
        result = self._recording.results[self.index]
        if len(call.leaves) == 1:
            return self._leaf(call.leaves[0], result, args, kwargs)
        if not any(number is not None for number in call.leaves):
            return result
        leaves, spec = tree_flatten(result, is_leaf=lambda leaf: leaf is None)
        found = [
            self._leaf(number, leaf, args, kwargs)
            for leaf, number in zip(leaves, call.leaves, strict=True)
        ]
        return tree_unflatten(found, spec)

    def _takes_stand_in(self, given: Iterable[Any]) -> bool:
        """Tell whether arguments hold a stand-in; by ``id``, as each call asks."""
        known = self._recording.stand_ins
        for value in given:
            if isinstance(value, (list, tuple, dict)):
                if any(id(leaf) in known for leaf in tensors_of(value)):
                    return True
            elif id(value) in known:
                return True
        return False

    def _leaf(self, number: int | None, leaf: Any, args: Any, kwargs: Any) -> Any:
        if number is None:
            return leaf
        if number >= 0:
            return self._value(number, leaf)
        return tensors_of((args, kwargs))[-1 - number]

    def _value(self, number: int, stand_in: Any) -> Any:
        value = self.structure.values[number]
        state = sum(call < self._cut for call in value.changed)
        tensor = self._recording.states.get((number, state))
        if tensor is None:
            return stand_in
        if state == len(value.changed):
            return tensor
        with torch._C.DisableTorchFunction():
            return tensor.clone()  # it is changed later


_name = lru_cache(maxsize=4096)(call_name)


def _stand_in(tensor: Tensor) -> Tensor:
    """Return a tensor of the same shape and type that takes no memory."""
    if not tensor.is_floating_point() and tensor.numel() <= 64:
        return tensor  # the code may look at single numbers
    made = torch.empty((), dtype=tensor.dtype, device=tensor.device).expand(tensor.shape)
    setattr(made, MARK, True)
    return made


def is_stand_in(tensor: object) -> bool:
    """Tell whether a tensor only has the shape of one that was not kept."""
    return hasattr(tensor, MARK)
