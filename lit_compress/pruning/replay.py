"""Running a function again from one of its torch calls on: what came before is remembered."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten

from lit_compress.errors import ReplayError
from lit_compress.pruning.trace import call_name

Run = Callable[[], Any]

#: Attribute of tensors that stand for others which are not kept.
MARK = "_lit_compress_stand_in"
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


@dataclass
class Structure:
    """The calls of a run, and which values they pass on.

    Attributes:
        calls: The calls in order.
        values: The tensors that they made.
        uses: By ``id`` of a tensor that was there before, the first call that took it.
        first_change: The first call that changed a tensor that was there before; None if none did.
    """

    calls: list[Call]
    values: list[Value]
    uses: dict[int, int]
    first_change: int | None = None

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


Stored = dict[tuple[int, int], Tensor]


@dataclass
class Recording:
    """What a run's calls gave, as far as it is needed later.

    Attributes:
        results: For each call, its result: tensors that are not needed stand-ins of their shape.
        states: By value and number of changes so far, the tensor.
    """

    results: list[Any]
    states: Stored


def structure_of(run: Run) -> Structure:
    """Run a function once and return the structure of its calls."""
    watch = _Watch()
    with torch.no_grad(), watch:
        run()
    return Structure(watch.calls, watch.values, watch.uses, watch.first_change)


def stored_bytes(structure: Structure, cuts: Sequence[int]) -> int:
    """Return the bytes that a recording for some cuts holds."""
    return sum(v.size for v in structure.values if any(v.crosses(cut) for cut in cuts))


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
    return Recording(keeper.results, keeper.states)


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


class _Watch(TorchFunctionMode):
    """Notes calls, values, and what is changed in place."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Call] = []
        self.values: list[Value] = []
        self.uses: dict[int, int] = {}
        self.first_change: int | None = None
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
        given = _tensors((args, kwargs))
        index = len(self.calls)
        with torch._C.DisableTorchFunction():
            before = [t._version for t in given]
        out = func(*args, **(kwargs or {}))
        with torch._C.DisableTorchFunction():
            self._note(index, call_name(func), given, before, out)
        return out

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
            return _stand_in(leaf)
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
            if any(is_stand_in(leaf) for leaf in _tensors((args, kwargs))):
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

    def _leaf(self, number: int | None, leaf: Any, args: Any, kwargs: Any) -> Any:
        if number is None:
            return leaf
        if number >= 0:
            return self._value(number, leaf)
        return _tensors((args, kwargs))[-1 - number]

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


def _tensors(value: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor)]
