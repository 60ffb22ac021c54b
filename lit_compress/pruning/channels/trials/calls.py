"""The torch calls of a trial, next to what the labels of the trace say of them.

A network without some channels makes the same calls as before. Each result should be as the labels
say: narrower where channels are removed, and otherwise equal to the result in the network that
reads zeros. The first call whose result is different is the cause of a failure, wherever the
failure shows.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from lit_compress.pruning.channels.tracing.calls import call_name, caller
from lit_compress.pruning.channels.tracing.labels import core
from lit_compress.pruning.channels.tracing.questions import INERT

#: Operations whose result can be quite another for inputs that differ by a rounding.
JUMPS = {
    *("argmax", "argmin", "argsort", "sort", "msort", "topk", "kthvalue", "nonzero", "nms"),
    *("unique", "unique_consecutive", "bucketize", "searchsorted", "histc", "bincount"),
    *("gt", "lt", "ge", "le", "eq", "ne", "greater", "less", "greater_equal", "less_equal"),
    *("not_equal", "isclose", "floor", "ceil", "round", "trunc", "sign", "long", "int"),
}
Close = Callable[[Tensor, Tensor], bool]


class Calls(TorchFunctionMode):
    """Counts the torch calls of a run as a trace does, and notes their results.

    Args:
        close: Tells whether two tensors are equal up to rounding. With it, the results are kept.
        before: The calls of the other network. An operation that jumps gets its result from there
            if its inputs were equal up to rounding there.

    Attributes:
        places: By number of the call, its name, file and line. Questions about a tensor have none.
        latest: Name, file and line of the latest call or question.
        shapes: By number of the call, the shapes of its results.
        values: By number of the call, its results; empty without ``close``.
    """

    def __init__(self, close: Close | None = None, before: Calls | None = None) -> None:
        super().__init__()
        self.places: list[tuple[str, str, int]] = []
        self.latest: tuple[str, str, int] = ("", "", 0)
        self.shapes: list[tuple[torch.Size, ...]] = []
        self.values: list[list[Tensor]] = []
        self._close, self._before = close, before
        self._jumps: dict[int, tuple[list[Tensor], Any]] = {}

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Collection[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Make the call."""
        name, index = call_name(func), len(self.places)
        self.latest = (name, *caller())
        if name in INERT:
            return func(*args, **(kwargs or {}))
        self.places.append(self.latest)
        with torch._C.DisableTorchFunction():  # what follows is not a call of the model
            inputs = _clones((args, kwargs)) if self._close and name in JUMPS else []
        out = func(*args, **(kwargs or {}))
        with torch._C.DisableTorchFunction():
            if inputs:
                self._jumps[index] = (inputs, out)
                out = self._as_before(index, inputs, out)
            results = _tensors(out)
            self.shapes.append(tuple(tensor.shape for tensor in results))
            if self._close is not None:
                self.values.append([tensor.detach() for tensor in results])
        return out

    def _as_before(self, index: int, inputs: list[Tensor], out: Any) -> Any:
        """Return the result of the other network if its inputs were the same up to rounding."""
        found = self._before._jumps.get(index) if self._before is not None else None
        if found is None or self._close is None or len(found[0]) != len(inputs):
            return out
        pairs = zip(found[0], inputs, strict=True)
        same = all(one.shape == two.shape and self._close(one, two) for one, two in pairs)
        return found[1] if same else out


@dataclass(frozen=True)
class Expected:
    """What the labels of a trace say of the results of a network without some channels.

    Attributes:
        twins: By number of the call, the twins of its results; None where one has no labels.
        removed: By label, whether its channel is removed.
        made_by: By number of the call, the name of the module that made it.
    """

    twins: Sequence[tuple[Tensor | None, ...]]
    removed: Tensor
    made_by: Sequence[str]

    def first_other_width(self, calls: Calls) -> int | None:
        """Return the first call whose results are not as narrow as the labels say."""
        for index, (twins, shapes) in enumerate(zip(self.twins, calls.shapes, strict=False)):
            wanted = [twin if twin is None else self.shape(twin) for twin in twins]
            if any(wanted) and len(wanted) != len(shapes):
                return index
            pairs = zip(wanted, shapes, strict=False)
            if any(one is not None and one != other for one, other in pairs):
                return index
        return None

    def first_other_value(self, before: Calls, calls: Calls, close: Close) -> int | None:
        """Return the first call whose results differ from those of the other network."""
        pairs = zip(self.twins, before.values, calls.values, strict=False)
        for index, (twins, ours, theirs) in enumerate(pairs):
            if not len(twins) == len(ours) == len(theirs):
                return index
            for twin, one, other in zip(twins, ours, theirs, strict=True):
                kept = one if twin is None else self._kept(twin, one)
                if kept.shape == other.shape and not close(kept, other):
                    return index
        return None

    def shape(self, twin: Tensor) -> torch.Size:
        """Return the shape that is left of a result."""
        sizes = list(twin.shape)
        for dim, removed in self._removed_along(twin).items():
            sizes[dim] -= int(removed.sum())
        return torch.Size(sizes)

    def _kept(self, twin: Tensor, value: Tensor) -> Tensor:
        if twin.shape != value.shape:
            return value
        for dim, removed in self._removed_along(twin).items():
            kept = torch.from_numpy(np.flatnonzero(~removed.numpy())).to(value.device)
            value = value.index_select(dim, kept)
        return value

    def _removed_along(self, twin: Tensor) -> dict[int, Tensor]:
        """Return, by dimension along which labels vary, which indices are removed."""
        small = core(twin)
        removed = torch.where(small >= 0, self.removed[small.clamp(min=0).long()], False)
        return {
            dim: removed.movedim(dim, 0).reshape(size, -1).all(1)
            for dim, size in enumerate(small.shape)
            if size > 1
        }


def _tensors(value: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor)]


def _clones(value: Any) -> list[Tensor]:
    return [tensor.detach().clone() for tensor in _tensors(value)]
