"""A run in which branches are multiplied by zero: what a network without them must compute."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from lit_compress.pruning.blocks.sums import ADDS
from lit_compress.pruning.channels.tracing.calls import call_name
from lit_compress.pruning.channels.tracing.questions import INERT
from lit_compress.pruning.channels.trials.zeroed import changed


class ZeroedBranches(TorchFunctionMode):
    """Sets summands to zero just before they are added.

    Args:
        cuts: By number of the sum, the position of the summand.
    """

    def __init__(self, cuts: Mapping[int, int]) -> None:
        super().__init__()
        self._cuts = cuts
        self._calls = 0

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Collection[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Make the call, with zeros in the place of a branch."""
        kwargs = kwargs or {}
        if call_name(func) in INERT:
            return func(*args, **kwargs)
        index, self._calls = self._calls, self._calls + 1
        if index in self._cuts:
            with torch._C.DisableTorchFunction():  # this is not a call of the model
                in_place = func.__name__ in ("add_", "__iadd__")
                self._check_same(index, func, (args, kwargs))
                args, kwargs = _with_zeros((args, kwargs), self._cuts[index], in_place)
        return func(*args, **kwargs)

    def _check_same(self, index: int, func: Callable[..., Any], arguments: Any) -> None:
        """Check that a run makes the calls of the run before: sums are known by number."""
        tensors = [leaf for leaf in tree_leaves(arguments) if isinstance(leaf, Tensor)]
        if call_name(func) not in ADDS or self._cuts[index] >= len(tensors):
            raise RuntimeError(f"the forward makes another call in each run: {call_name(func)}")


def _with_zeros(arguments: Any, position: int, in_place: bool) -> Any:
    """Return arguments with zeros in one tensor; one that the call changes is zeroed itself."""
    zero = torch.Tensor.zero_ if in_place and position == 0 else torch.zeros_like
    return changed(arguments, {position: zero})
