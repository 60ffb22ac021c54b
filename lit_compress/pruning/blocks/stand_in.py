"""The module that stands in place of a removed one."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from typing_extensions import override

from lit_compress.errors import PlanError

#: What follows the sum of a block, and still has to be computed without its branch.
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": functional.relu,
    "relu6": functional.relu6,
    "gelu": functional.gelu,
    "silu": functional.silu,
    "hardswish": functional.hardswish,
}
#: What is not computed from the input: one zero, or as many as the input has elements.
ZEROS = ("zero", "zeros")
#: Most things that a module returns in a tuple.
MOST = 16
#: Where a module has the hooks of its forward.
HOOKS = (
    "_forward_hooks",
    "_forward_hooks_always_called",
    "_forward_hooks_with_kwargs",
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
)
#: Types of attributes that stay readable, since the code around a block may ask for them.
PLAIN = (bool, int, str, type(None))


class StandIn(nn.Module):
    """Stands in place of a removed module; it has no weights.

    The hooks of the removed module, and its attributes that are whole numbers or text, stay. Its
    weights and parts are None here.

    Args:
        kind: ``identity`` returns the input, the name of an activation applies it, ``zero`` returns
            a single zero and ``zeros`` zeros in the shape of the input. ``identity:2`` returns a
            tuple of two: the input and None.
        removed: The module that was removed. It is kept aside, on the CPU, so that a checkpoint
            from before the removal can still be loaded; copies have it, and pickles do not.

    Raises:
        PlanError: If there is no such kind.

    Example:
        >>> StandIn("relu", nn.Linear(2, 2))(torch.tensor([-1.0, 2.0]))
        tensor([0., 2.])
    """

    def __init__(self, kind: str, removed: nn.Module | None = None) -> None:
        super().__init__()
        self.kind = kind
        value, _, length = kind.partition(":")
        known = value == "identity" or value in ACTIVATIONS or value in ZEROS
        if not known or not (length == "" or (length.isdecimal() and 0 < int(length) <= MOST)):
            raise PlanError(
                f"{kind!r:.60} does not say what stands in place of a removed block: the "
                "checkpoint is damaged, or was saved by a later version"
            )
        self._value, self._length = value, int(length or 0)
        self._instead_of = "" if removed is None else type(removed).__name__
        self._absent: frozenset[str] = frozenset()
        #: In a tuple, so that it is no part of this module.
        self._removed: tuple[nn.Module, ...] = ()
        if removed is not None:
            self._take_over(removed)
            self._removed = (removed,)

    def _take_over(self, removed: nn.Module) -> None:
        own = vars(self)
        for name, value in vars(removed).items():
            if not name.startswith("_") and type(value) in PLAIN and name not in own:
                own[name] = value
        tables = (removed._parameters, removed._buffers, removed._modules)
        self._absent = frozenset(name for table in tables for name in table)
        self.training = removed.training
        for name in HOOKS:
            own[name] = vars(removed)[name]

    @property
    def removed(self) -> nn.Module | None:
        """The module that was removed; None if it was not kept."""
        return self._removed[0] if self._removed else None

    def forget(self) -> None:
        """Drop the module that was removed."""
        self._removed = ()

    @override
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        first = next(v for v in (*args, *kwargs.values()) if isinstance(v, Tensor))
        value = self._computed(first)
        return (value, *[None] * (self._length - 1)) if self._length else value

    def _computed(self, given: Tensor) -> Tensor:
        if self._value == "zero":
            return given.new_zeros(())
        if self._value == "zeros":
            return torch.zeros_like(given)
        return ACTIVATIONS[self._value](given) if self._value in ACTIVATIONS else given

    @override
    def __getattr__(self, name: str) -> Any:
        if name in vars(self).get("_absent", ()):
            return None
        return super().__getattr__(name)

    @override
    def extra_repr(self) -> str:
        return f"{self.kind}, in place of {self._instead_of}" if self._instead_of else self.kind

    def __deepcopy__(self, memo: dict[int, Any]) -> StandIn:
        """Copy the removed module too."""
        made = StandIn.__new__(StandIn)
        memo[id(self)] = made
        vars(made).update(copy.deepcopy(vars(self), memo))
        return made

    @override
    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_removed": ()}
