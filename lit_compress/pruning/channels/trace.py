"""Trace a run of a model: intercept each torch call, and pass labels on to its result."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
)
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary

from lit_compress.pruning.channels.labels import Labels, Reason, compact, core

#: Source files to skip when a reason names the line of the model's own code that made a call.
_TORCH = str(Path(torch.__file__).parent) + os.sep
_HERE = str(Path(__file__).parents[1]) + os.sep


@dataclass(frozen=True)
class Use:
    """Use of a model's tensor together with labelled channels.

    Attributes:
        tensor: Name of the parameter or buffer.
        dim: Dimension along which the labels lie.
        labels: One label for each index of the dimension.
        role: ``filter`` (the tensor makes the channels), ``depthwise`` (it has one filter for each
            channel), ``input`` (it reads the channels) or ``scale`` (it has one value for each
            channel: bias, norm, gate).
    """

    tensor: str
    dim: int
    labels: Tensor
    role: str


@dataclass
class Call:
    """One torch call.

    Attributes:
        name: Name of the function, see :func:`call_name`.
        func: The function.
        args: Its positional arguments.
        kwargs: Its keyword arguments.
        out: Its result.
        reason: Makes a :class:`Reason` that names this call.
    """

    name: str
    func: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    out: Any
    reason: Callable[[str], Reason]

    def argument(self, index: int, name: str, default: Any = None) -> Any:
        """Return an argument by its position or its name."""
        if len(self.args) > index:
            return self.args[index]
        return self.kwargs.get(name, default)

    def tensors(self) -> list[Tensor]:
        """Return the tensors among the arguments."""
        leaves = tree_leaves((self.args, self.kwargs))
        return [leaf for leaf in leaves if isinstance(leaf, Tensor)]

    def results(self) -> list[Tensor]:
        """Return the tensors in the result."""
        return [leaf for leaf in tree_leaves(self.out) if isinstance(leaf, Tensor)]


@dataclass
class Recording:
    """Record of a traced run: how the model uses its own tensors.

    Attributes:
        uses: Uses by tensor name and dimension.
        positions: By weight name, the number of output positions where the weight is applied.
            Positions times the size of the weight are its MACs in this run.
        min_indices: By tensor name and dimension, the number of indices that must remain, where it
            is more than one.
        opaque: By tensor name, why the trace cannot follow a use of the tensor.
        norms: By name of a norm module without parameters and buffers, the labels of its input.
        seen: Names of the tensors that any call used.
    """

    uses: dict[tuple[str, int], Use] = field(default_factory=dict)
    positions: dict[str, int] = field(default_factory=dict)
    min_indices: dict[tuple[str, int], int] = field(default_factory=dict)
    opaque: dict[str, Reason] = field(default_factory=dict)
    norms: dict[str, Tensor] = field(default_factory=dict)
    seen: set[str] = field(default_factory=set)


class Trace(TorchFunctionMode):
    """Follows labels through a run of a model.

    Args:
        model: The model.
        handlers: By name of a call, the function that passes labels on; it takes the trace and the
            call.
        unknown: Handler of all other calls.
        blocked: Calls to freeze, with the reason: by their number in the run, or by name, file and
            line. Channels of their arguments and results cannot be removed.
    """

    def __init__(
        self,
        model: nn.Module,
        handlers: Mapping[str, Callable[[Trace, Call], None]],
        unknown: Callable[[Trace, Call], None],
        blocked: Mapping[int | tuple[str, str, int], Reason] | None = None,
    ) -> None:
        super().__init__()
        self.labels = Labels()
        self.recording = Recording()
        self.calls = 0
        self.place: tuple[str, str, int] = ("", "", 0)
        self.modules: list[tuple[str, nn.Module]] = []
        #: By number of the call, the module that made it, and the twins of its results.
        self.made_by: list[str] = []
        self.results: list[tuple[Tensor | None, ...]] = []
        #: By label, the number of its channel in the graph; below 0 if it cannot be removed.
        self.numbers = np.empty(0, np.int64)
        self._handlers = handlers
        self._unknown = unknown
        self._blocked = blocked or {}
        self.tensors = named_tensors(model)
        self._names = {id(tensor): name for name, tensor in self.tensors.items()}
        self._module_names = {child: name for name, child in model.named_modules()}
        self._twins: Any = WeakTensorKeyDictionary()
        self._views: Any = WeakTensorKeyDictionary()

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Collection[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Make the call, then follow the labels through it."""
        index, self.calls = self.calls, self.calls + 1
        name = call_name(func)
        self.place = (name, *caller())
        out = func(*args, **(kwargs or {}))
        call = Call(
            name=name, func=func, args=args, kwargs=kwargs or {}, out=out, reason=self.reason
        )
        with torch._C.DisableTorchFunction(), torch.no_grad():
            self.recording.seen.update(map(self.name, call.tensors()))
            self._handlers.get(name, self._unknown)(self, call)
            blocked = self._blocked.get(index) or self._blocked.get(self.place)
            if blocked is not None:
                why = replace(blocked, module=self._module())  # each call at a line has its own
                for tensor in (*call.tensors(), *call.results()):
                    self.freeze(tensor, why)
            self.made_by.append(self._module())
            self.results.append(tuple(self._twins.get(tensor) for tensor in call.results()))
        return out

    def reason(self, why: str) -> Reason:
        """Return a reason that names the current call."""
        op, file, line = self.place
        return Reason(why, op, self._module(), os.path.basename(file), line)

    def _module(self) -> str:
        """Return the name of the module that makes the current call."""
        return next((name for name, _ in reversed(self.modules) if name), "")

    def twin(self, value: Any) -> Tensor | None:
        """Return the twin of a tensor, or None if it carries no labels."""
        if not isinstance(value, Tensor):
            return None
        twin: Tensor | None = self._twins.get(value)
        if twin is not None and twin.shape != value.shape:
            self.labels.freeze(twin, self.reason("is in a tensor whose shape was changed in place"))
            return None
        return twin

    def label(self, tensor: Tensor, twin: Tensor) -> None:
        """Set the twin of a tensor; a twin without any label is dropped."""
        if twin.shape == tensor.shape and bool((core(twin) >= 0).any()):
            self._twins[tensor] = compact(twin)
        elif tensor in self._twins:
            del self._twins[tensor]

    def freeze(self, value: Any, reason: Reason) -> None:
        """Freeze the channels of an activation, a parameter, a buffer or a view of one."""
        if not isinstance(value, Tensor):
            return
        self.labels.freeze(self._twins.get(value), reason)
        name = self.name(value) or self.view(value)[0]
        if name:
            self.recording.opaque.setdefault(name, reason)

    def name(self, value: Any) -> str:
        """Return the name of a parameter or buffer of the model, empty for any other value."""
        return self._names.get(id(value), "") if isinstance(value, Tensor) else ""

    def view(self, value: Tensor) -> tuple[str, Tensor | None]:
        """Return the model's tensor that a value is made of.

        Returns:
            The name of the tensor, or an empty string; by position of the value, the index of the
            element in the flattened tensor, or None if there is no such tensor.
        """
        name = self.name(value)
        if name:
            return name, torch.arange(value.numel()).view(value.shape)
        source: tuple[str, Tensor | None] = self._views.get(value, ("", None))
        return source

    def set_view(self, value: Tensor, name: str, elements: Tensor) -> None:
        """Record which elements of a model's tensor a value is made of, see :meth:`view`."""
        self._views[value] = (name, elements)

    def use(self, value: Tensor | None, dim: int, labels: Tensor, role: str) -> None:
        """Record that a model's tensor is used with labels along one of its dimensions.

        Args:
            value: The tensor; None is ignored. The labels are frozen if it is not a parameter or
                buffer of the model.
            dim: Dimension along which the labels lie.
            labels: One label for each index of the dimension.
            role: See :class:`Use`.
        """
        if value is None:
            return
        name = self.name(value)
        if not name:
            why = "is used with a tensor that is not a parameter or buffer of the model"
            self.freeze(value, self.reason(why))
            self.labels.freeze(labels, self.reason(why))
            return
        before = self.recording.uses.get((name, dim))
        if before is None:
            self.recording.uses[name, dim] = Use(name, dim, labels.contiguous(), role)
        else:
            self.labels.tie(before.labels, labels, self.reason(f"{name} is used more than once"))

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Trace all torch calls, and the modules that make them, until the end of the block."""

        def enter(module: nn.Module, _: Any) -> None:
            self.modules.append((self._module_names.get(module, ""), module))

        def leave(module: nn.Module, _: Any, __: Any) -> None:
            while self.modules and self.modules.pop()[1] is not module:
                pass

        with layer_calls(enter, leave), self:
            yield


@contextmanager
def layer_calls(
    enter: Callable[[nn.Module, Any], None], leave: Callable[[nn.Module, Any, Any], None]
) -> Iterator[None]:
    """Call two functions before and after the forward of each layer, until the end of the block.

    Args:
        enter: Called with the layer and its arguments.
        leave: Called with the layer, its arguments and its result.
    """
    handles = (register_module_forward_pre_hook(enter), register_module_forward_hook(leave))
    try:
        with warnings.catch_warnings():
            # Compiled modules run uncompiled here, so that hooks fire once.
            warnings.filterwarnings("ignore", "Using `torch.compile", UserWarning)
            yield
    finally:
        for handle in handles:
            handle.remove()


def call_name(func: Callable[..., Any]) -> str:
    """Return the name of a torch function, without the underscores of its variants."""
    name = getattr(func, "__name__", type(func).__name__)
    if name == "__get__":
        return f"get {getattr(getattr(func, '__self__', None), '__name__', '')}"
    return name.partition(".")[0].strip("_") or name


def caller() -> tuple[str, int]:
    """Return the file and line of the model's own code that made the current call.

    Returns:
        An empty name and line 0 if the call does not come from the model's code.
    """
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        file = frame.f_code.co_filename
        if file.startswith(_HERE):
            break
        if not file.startswith(_TORCH):
            return file, frame.f_lineno
        frame = frame.f_back
    return "", 0


def named_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Return a model's parameters and buffers, each tensor once, by its first name."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}
