"""Trace a run of a model: intercept each torch call, and pass labels on to its result."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

from lit_compress.pruning.channels.tracing.calls import call_name, caller, layer_calls
from lit_compress.pruning.channels.tracing.counts import Count, counted
from lit_compress.pruning.channels.tracing.labels import (
    Labels,
    Reason,
    compact,
    is_labelled,
    spread,
    varying,
)
from lit_compress.pruning.channels.tracing.modules import named_modules, named_tensors
from lit_compress.pruning.channels.tracing.questions import INERT
from lit_compress.pruning.channels.tracing.records import (
    Call,
    Computed,
    Mixed,
    Read,
    Recording,
    Split,
    Use,
)


class Trace(TorchFunctionMode):
    """Follows labels through a run of a model.

    Args:
        model: The model.
        handlers: By name of a call, the function that passes labels on; it takes the trace and the
            call.
        unknown: Handler of all other calls.
        blocked: Calls to freeze, with the reason: by their number in the run, or by name, file and
            line. Channels of their arguments and results cannot be removed.
        own: Handler of the calls whose tensors are all the model's own; it tells whether it could
            follow the call.
        approximate: Whether channels pass through norms that depend on all of them.
    """

    def __init__(
        self,
        model: nn.Module,
        handlers: Mapping[str, Callable[[Trace, Call], None]],
        unknown: Callable[[Trace, Call], None],
        blocked: Mapping[int | tuple[str, str, int], Reason] | None = None,
        own: Callable[[Trace, Call], bool] = lambda trace, call: False,
        approximate: bool = False,
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
        self._handlers = handlers
        self._unknown = unknown
        self._blocked = blocked or {}
        self._own = own
        self._model = model
        self.approximate = approximate
        #: The reshapes that split a channel dimension.
        self.splits: list[Split] = []
        self.tensors = named_tensors(model)
        self._names = {id(tensor): name for name, tensor in self.tensors.items()}
        self._module_names = {child: name for name, child in named_modules(model)}
        self._twins: Any = WeakTensorKeyDictionary()
        self._computed: Any = WeakTensorKeyDictionary()
        self._axes: dict[tuple[str, int], Tensor] = {}
        self._mixing = False

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Collection[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Make the call, then follow the labels through it."""
        name = call_name(func)
        if name in INERT:
            return func(*args, **(kwargs or {}))
        index, self.calls = self.calls, self.calls + 1
        self.place = (name, *caller())
        self.recording.names.append(name)
        out = func(*args, **(kwargs or {}))
        call = Call(
            name=name, func=func, args=args, kwargs=kwargs or {}, out=out, reason=self.reason
        )
        with torch._C.DisableTorchFunction(), torch.no_grad():
            tensors = call.tensors()
            self.recording.seen.update(map(self.name, tensors))
            if not (self._all_own(tensors) and self._own(self, call)):
                self._handlers.get(name, self._unknown)(self, call)
            if self._mixing:
                self._note_mixed(index, call)
            blocked = self._blocked.get(index) or self._blocked.get(self.place)
            if blocked is not None:
                same = blocked.op == name  # and not a question behind the call
                why = replace(blocked, module=self._module()) if same else blocked
                for tensor in (*tensors, *call.results()):
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
        small = compact(twin) if twin.shape == tensor.shape else None
        if small is not None and is_labelled(small):
            self._twins[tensor] = small
        elif tensor in self._twins:
            del self._twins[tensor]

    def pass_on(self, tensor: Tensor, twin: Tensor) -> None:
        """Set the twin of a tensor of the same shape to one that :meth:`twin` returned."""
        self._twins[tensor] = twin

    def freeze(self, value: Any, reason: Reason) -> None:
        """Freeze the channels of an activation, a parameter, a buffer or a view of one."""
        if not isinstance(value, Tensor):
            return
        self.labels.freeze(self._twins.get(value), reason)
        for name in self.sources(value):
            self.recording.opaque.setdefault(name, reason)

    def name(self, value: Any) -> str:
        """Return the name of a parameter or buffer of the model, empty for any other value."""
        return self._names.get(id(value), "") if isinstance(value, Tensor) else ""

    def computed(self, value: Tensor) -> Computed | None:
        """Return what a tensor is made of, if that is the model's own tensors alone; else None."""
        name = self.name(value)
        if not name:
            made: Computed | None = self._computed.get(value)
            return made
        dims = range(min(value.dim(), 2 if value.dim() > 3 else 3))  # others are kernels
        twins = {
            (name, dim): spread(self._axis(name, dim), value.shape, dim)
            for dim in dims
            if value.shape[dim] > 1
        }
        return Computed(twins, (name,))

    def sources(self, value: Any) -> tuple[str, ...]:
        """Return the names of the parameters and buffers that a tensor is made of.

        The one with most elements comes first; there is none if activations are part of it.
        """
        name = self.name(value)
        made = self._computed.get(value) if isinstance(value, Tensor) and not name else None
        return (name,) if name else () if made is None else made.sources

    def set_computed(self, value: Tensor, made: Computed) -> None:
        """Record what a tensor is made of."""
        self._computed[value] = made

    def mix(self) -> None:
        """Record that the current call depends on all channels of its arguments."""
        self._mixing = True

    def count(self, count: Count, labels: Tensor) -> None:
        """Record that a module keeps the number of some channels as an attribute."""
        self.width(count.owner, labels, Reason(f"{count.owner} is used more than once"))

    def width(self, name: str, labels: Tensor, reason: Reason) -> None:
        """Record that a module has a width that no tensor tells; see :attr:`Recording.widths`."""
        before = self.recording.widths.setdefault(name, labels.contiguous())
        self.labels.tie(before, labels, reason)

    def read(self, image: Tensor, call: Call, dim: int, labels: Tensor) -> None:
        """Record that a call reads channels with a weight."""
        at = next(i for i, tensor in enumerate(call.tensors()) if tensor is image)
        self.recording.reads[self.calls - 1] = Read(at, dim, labels)

    def use(self, value: Tensor | None, dim: int, labels: Tensor, role: str) -> None:
        """Record that a model's tensor is used with labels along one of its dimensions.

        Args:
            value: The tensor; None is ignored. The labels are frozen if it is not made of the
                model's own tensors alone, or if they cannot be followed to these.
            dim: Dimension along which the labels lie.
            labels: One label for each index of the dimension.
            role: See :class:`Use`.
        """
        if value is None or self.follow(value, dim, labels, role):
            return
        self.labels.freeze(
            labels, self.reason("is used with a tensor that does not follow from the parameters")
        )

    def follow(self, value: Tensor, dim: int, labels: Tensor, role: str = "scale") -> bool:
        """Do as :meth:`use` does, but tell whether the labels could be followed."""
        name = self.name(value)
        if name:
            self._record(name, dim, labels, role)
            return True
        made = self.computed(value)
        rows = {} if made is None else self._rows(made, dim)
        covered = torch.zeros(len(labels), dtype=torch.bool)
        for row in rows.values():
            covered |= row >= 0
        if made is None or not bool(covered.all()):
            return False
        if role != "input" and made.normed & rows.keys():
            self.labels.freeze(labels, self.reason("is normalised together with other filters"))
        for (source, axis), row in rows.items():
            there = row >= 0
            why = self.reason(f"is computed from {source}")
            self.labels.tie(row[there], labels[there], why)
            own = role if source == made.sources[0] or role == "input" else "scale"
            self._record(source, axis, self._axis(source, axis), own)
        return True

    def _rows(self, made: Computed, dim: int) -> dict[tuple[str, int], Tensor]:
        """Return the labels of a computed tensor along one of its dimensions, by their source."""
        why = self.reason("is computed from several indices of a parameter")
        return {
            key: self.labels.along(twin, dim, why)
            for key, twin in made.twins.items()
            if dim in varying(twin)
        }

    def _record(self, name: str, dim: int, labels: Tensor, role: str) -> None:
        before = self.recording.uses.get((name, dim))
        if before is None:
            self.recording.uses[name, dim] = Use(name, dim, labels.contiguous(), role)
            before_labels = self._axes.get((name, dim))
            if before_labels is None or before_labels is labels:
                return
        else:
            before_labels = before.labels
            if {before.role, role} == {"filter", "input"}:  # the weight, and the same transposed
                self.labels.freeze(labels, self.reason(f"{name} both reads and makes channels"))
        self.labels.tie(before_labels, labels, self.reason(f"{name} is used more than once"))

    def _axis(self, name: str, dim: int) -> Tensor:
        """Return the labels of the indices of a parameter's dimension."""
        use = self.recording.uses.get((name, dim))
        if use is not None:
            return use.labels
        if (name, dim) not in self._axes:
            self._axes[name, dim] = self.labels.fresh(self.tensors[name].shape[dim])
        return self._axes[name, dim]

    def close(self) -> None:
        """Record the parameters that are part of a computed weight, and of no dimension of it."""
        for (name, dim), labels in self._axes.items():
            if (name, dim) not in self.recording.uses:
                self.recording.uses[name, dim] = Use(name, dim, labels, "scale")

    def _all_own(self, tensors: list[Tensor]) -> bool:
        """Tell whether all tensors of a call are the model's own, single numbers apart."""
        own = [id(t) in self._names or t in self._computed for t in tensors]
        labelled = (t.numel() > 1 or t in self._twins for t in tensors)
        others = (some for some, mine in zip(labelled, own, strict=True) if not mine)
        return any(own) and not any(others)

    def _note_mixed(self, index: int, call: Call) -> None:
        """Record the twins of a call that depends on all channels."""
        self._mixing = False
        self.recording.mixed[index] = Mixed(
            tuple(map(self._twins_of, call.tensors())), tuple(map(self._twins_of, call.results()))
        )

    def _twins_of(self, value: Tensor) -> tuple[Tensor, ...]:
        twin, made = self._twins.get(value), self.computed(value)
        return (() if twin is None else (twin,)) + (tuple(made.twins.values()) if made else ())

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Trace all torch calls, and the modules that make them, until the end of the block."""

        def enter(module: nn.Module, _: Any) -> None:
            self.modules.append((self._module_names.get(module, ""), module))

        def leave(module: nn.Module, _: Any, __: Any) -> None:
            while self.modules and self.modules.pop()[1] is not module:
                pass

        with counted(self._model), layer_calls(enter, leave), self:
            yield
