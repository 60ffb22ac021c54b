"""A run of a network in which values are followed: which call made each, and from which others."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from os.path import basename
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from lit_compress.pruning.channels.tracing.calls import call_name, caller, layer_calls
from lit_compress.pruning.channels.tracing.labels import Reason
from lit_compress.pruning.channels.tracing.modules import named_tensors
from lit_compress.pruning.channels.tracing.questions import INERT


@dataclass(frozen=True)
class FlowCall:
    """A torch call.

    Attributes:
        name: Name of the function.
        inputs: Numbers of the values among its arguments.
        outputs: Numbers of the values that it returns or changes.
        options: Its arguments that are not tensors.
        within: Positions of the module calls that it is in, the outermost first.
        reads: Names of the parameters and buffers among its arguments.
        place: File and line of the model's own code.
    """

    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: tuple[Any, ...]
    within: tuple[int, ...]
    reads: tuple[str, ...]
    place: tuple[str, int]

    def reason(self, why: str, module: str) -> Reason:
        """Return a reason that names the call."""
        return Reason(why, self.name, module, basename(self.place[0]), self.place[1])


@dataclass
class ModuleCall:
    """A call of a module.

    Attributes:
        name: Name of the module; empty for the model itself, and for modules of others.
        module: The module.
        start: Number of torch calls before it.
        end: Number of torch calls after it.
        given: Number of the value of its first argument; -1 if that is no tensor.
        made: By position in what it returns, the numbers of values; -1 for None.
        returns: How many things it returns in a tuple; 0 if it returns a tensor, -1 for others.
        shapes: Shape of its first argument, and of its first result.
    """

    name: str
    module: nn.Module
    start: int
    end: int = -1
    given: int = -1
    made: tuple[int, ...] = ()
    returns: int = -1
    shapes: list[tuple[int, ...]] = field(default_factory=list)


class Flow(TorchFunctionMode):
    """Records the calls of a run, and what each of them reads and makes.

    A call that changes a tensor in place makes a new value, as others do.

    Args:
        model: The model.

    Attributes:
        calls: The torch calls, in order. Questions about a tensor are left out.
        modules: The calls of modules, in order.
        maker: By value, the number of the call that made it.
        outputs: The values that the network returns.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.calls: list[FlowCall] = []
        self.modules: list[ModuleCall] = []
        self.maker: dict[int, int] = {}
        self.outputs: tuple[int, ...] = ()
        self._count = 0
        self._values: dict[int, int] = {}
        self._alive: list[Tensor] = []  # no other tensor gets the identity of one of these
        self._stack: list[int] = []
        self._names = {child: name for name, child in model.named_modules()}
        self._tensors = {id(tensor): name for name, tensor in named_tensors(model).items()}

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Collection[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Make the call, and record it."""
        kwargs = kwargs or {}
        name = call_name(func)
        if name in INERT:
            return func(*args, **kwargs)
        place = caller()
        leaves = tree_leaves((args, kwargs))
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        inputs = tuple(map(self.value, tensors))
        out = func(*args, **kwargs)
        with torch._C.DisableTorchFunction():
            made = [leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]
            if not made and tensors and name == "setitem":
                made = tensors[:1]
            self._record(name, inputs, tensors, leaves, made, place)
        return out

    def _record(
        self,
        name: str,
        inputs: tuple[int, ...],
        tensors: list[Tensor],
        leaves: list[Any],
        made: list[Tensor],
        place: tuple[str, int],
    ) -> None:
        outputs = tuple(self._new(tensor) for tensor in made)
        self.maker.update(dict.fromkeys(outputs, len(self.calls)))
        options = tuple(leaf for leaf in leaves if not isinstance(leaf, Tensor))
        reads = tuple(self._tensors[id(t)] for t in tensors if id(t) in self._tensors)
        self.calls.append(
            FlowCall(name, inputs, outputs, options, tuple(self._stack), reads, place)
        )

    def value(self, tensor: Tensor) -> int:
        """Return the number of the value that a tensor holds now."""
        return self._values[id(tensor)] if id(tensor) in self._values else self._new(tensor)

    def _new(self, tensor: Tensor) -> int:
        if id(tensor) not in self._values:
            self._alive.append(tensor)
        self._values[id(tensor)] = self._count
        self._count += 1
        return self._count - 1

    def owner(self, call: FlowCall) -> str:
        """Return the name of the innermost module of the model that makes a call."""
        return next((n for i in reversed(call.within) if (n := self.modules[i].name)), "")

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Record all torch calls, and the modules that make them, until the end of the block."""

        def enter(module: nn.Module, args: Any) -> None:
            first = args[0] if isinstance(args, tuple) and args else None
            found = ModuleCall(self._names.get(module, ""), module, len(self.calls))
            if isinstance(first, Tensor):
                with torch._C.DisableTorchFunction():
                    found.given, found.shapes = self.value(first), [tuple(first.shape)]
            self._stack.append(len(self.modules))
            self.modules.append(found)

        def leave(module: nn.Module, _: Any, result: Any) -> None:
            while self._stack:
                call = self.modules[self._stack.pop()]
                if call.module is module:
                    with torch._C.DisableTorchFunction():
                        self._leave(call, result)
                    return

        with layer_calls(enter, leave), self:
            yield

    def _leave(self, call: ModuleCall, result: Any) -> None:
        call.end = len(self.calls)
        parts = result if isinstance(result, (tuple, list)) else (result,)
        if not parts or not isinstance(parts[0], Tensor):
            return
        if any(not isinstance(part, Tensor) and part is not None for part in parts):
            return
        call.returns = len(parts) if type(result) is tuple else 0 if parts[0] is result else -1
        call.made = tuple(-1 if part is None else self.value(part) for part in parts)
        call.shapes = [*call.shapes, tuple(parts[0].shape)]


def ancestors(flow: Flow, value: int, cut: Mapping[int, int] | None = None) -> set[int]:
    """Return the numbers of the calls that a value is made by, directly or not.

    Args:
        flow: The run.
        value: The value.
        cut: By number of a call, the position of an argument that is not followed.
    """
    found: set[int] = set()
    todo = [value]
    while todo:
        call = flow.maker.get(todo.pop())
        if call is None or call in found:
            continue
        found.add(call)
        skipped = (cut or {}).get(call, -1)
        inputs = flow.calls[call].inputs
        todo += [value for at, value in enumerate(inputs) if at != skipped]
    return found
