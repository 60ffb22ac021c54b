"""A run in which layers read zeros in the place of channels that a plan removes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

from lit_compress.pruning.channels.tracing.calls import call_name
from lit_compress.pruning.channels.tracing.labels import core
from lit_compress.pruning.channels.tracing.questions import INERT
from lit_compress.pruning.channels.tracing.records import Mixed, Read, Recording

#: Norms that are told the sizes of the dimensions they normalise.
SIZED = ("layer_norm", "rms_norm")


class ZeroedInputs(TorchFunctionMode):
    """Replaces by zeros the inputs that layers read from channels that a plan removes.

    It zeroes the activation and not the weight, which can be a thousand times larger. A call whose
    result depends on all channels, as the statistics of a norm do, is made with those that are
    left, as it will be in the network without the others.

    Args:
        recording: What the trace of the same run recorded.
        removed: By label, whether its channel is removed.
    """

    def __init__(self, recording: Recording, removed: Tensor) -> None:
        super().__init__()
        self._removed = removed
        self._reads = {i: read for i, read in recording.reads.items() if self._any(read.labels)}
        self._mixed = {
            index: mixed
            for index, mixed in recording.mixed.items()
            if any(self._any(twin) for twins in mixed.inputs for twin in twins)
        }
        self._calls = 0
        self._names = recording.names

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Collection[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Make the call, with zeros in the removed channels of its input."""
        kwargs = kwargs or {}
        if call_name(func) in INERT:
            return func(*args, **kwargs)
        index, self._calls = self._calls, self._calls + 1
        if index in self._reads or index in self._mixed:
            self._check_same(index, call_name(func))
        if index in self._mixed:
            with torch._C.DisableTorchFunction():
                return self._without(func, args, kwargs, self._mixed[index])
        if index in self._reads:
            with torch._C.DisableTorchFunction():  # this is not a call of the model
                args, kwargs = self._zeroed((args, kwargs), self._reads[index])
        return func(*args, **kwargs)

    def _check_same(self, index: int, name: str) -> None:
        """Check that a run makes the calls of the trace: what is zeroed is known by number."""
        traced = self._names[index] if index < len(self._names) else "nothing"
        if traced != name:
            raise RuntimeError(f"the forward makes another call in each run: {name}, not {traced}")

    def _any(self, labels: Tensor) -> bool:
        return bool(self._is_removed(core(labels)).any())

    def _is_removed(self, labels: Tensor) -> Tensor:
        return torch.where(labels >= 0, self._removed[labels.clamp(min=0).long()], False)

    def _zeroed(self, arguments: Any, read: Read) -> Any:
        """Return the arguments with zeros in the place of the removed channels."""
        indices = self._is_removed(read.labels).nonzero().flatten()

        def zero(image: Tensor) -> Tensor:
            return image.index_fill(read.dim, indices.to(image.device), 0)

        return changed(arguments, {read.argument: zero})

    def _without(self, func: Callable[..., Any], args: Any, kwargs: Any, mixed: Mixed) -> Any:
        """Make a call with the channels that are left; put zeros in the place of the others."""
        changes = {
            position: lambda tensor, twins=twins: _select(tensor, self._kept(twins))
            for position, twins in enumerate(mixed.inputs)
        }
        args, kwargs = changed((args, kwargs), changes)
        if call_name(func) in SIZED:  # the sizes are those of the dimensions at the end
            sizes = args[1] if len(args) > 1 else kwargs["normalized_shape"]
            args = (args[0], tuple(args[0].shape[-len(sizes) :]), *args[2:])
            kwargs.pop("normalized_shape", None)
        outputs = iter(mixed.outputs)
        return tree_map(
            lambda out: self._filled(out, next(outputs)) if isinstance(out, Tensor) else out,
            func(*args, **kwargs),
        )

    def _kept(self, twins: Sequence[Tensor]) -> dict[int, Tensor]:
        """Return, by dimension, the indices that are left of those that have labels."""
        kept: dict[int, Tensor] = {}
        for twin in twins:
            small = core(twin)
            removed = self._is_removed(small)
            for dim, size in enumerate(small.shape):
                gone = removed.movedim(dim, 0).reshape(size, -1).all(1)
                if size > 1 and bool(gone.any()):
                    kept[dim] = (~gone).nonzero().flatten()
        return kept

    def _filled(self, narrow: Tensor, twins: Sequence[Tensor]) -> Tensor:
        """Return a result of full size, with zeros where channels were left out."""
        for dim, kept in self._kept(twins).items():
            shape = list(narrow.shape)
            shape[dim] = twins[0].shape[dim]
            full = narrow.new_zeros(shape)
            narrow = full.index_copy(dim, kept.to(narrow.device), narrow)
        return narrow


def _select(tensor: Tensor, kept: Mapping[int, Tensor]) -> Tensor:
    for dim, indices in kept.items():
        tensor = tensor.index_select(dim, indices.to(tensor.device))
    return tensor


def changed(arguments: Any, changes: Mapping[int, Callable[[Tensor], Tensor]]) -> Any:
    """Return arguments in which the tensors at some positions are changed.

    Args:
        arguments: The arguments of a call.
        changes: By position among the tensors, what changes it.
    """
    tensors = [leaf for leaf in tree_leaves(arguments) if isinstance(leaf, Tensor)]
    position = iter(range(len(tensors)))

    def change(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor):
            return leaf
        at = next(position)
        return changes[at](leaf) if at in changes else leaf

    return tree_map(change, arguments)
