"""A run in which layers read only the channels that a plan leaves."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from lit_compress.errors import ChannelError
from lit_compress.pruning.channels.tracing.calls import call_name
from lit_compress.pruning.channels.tracing.questions import INERT


@dataclass(frozen=True)
class _Reader:
    """An operation that multiplies an activation by a weight.

    Attributes:
        image: Position and name of the activation.
        weight: Position and name of the weight.
        dim: Dimension of the weight that reads the channels.
        spatial: Whether the channels are not the last dimension of the activation, but lie before
            as many as the kernel has.
    """

    image: tuple[int, str]
    weight: tuple[int, str]
    dim: int
    spatial: bool = False

    def channel(self, image: Tensor, weight: Tensor) -> int:
        """Return the dimension of an activation along which its channels lie."""
        return image.dim() - (weight.dim() - 1 if self.spatial else 1)


_CONV = _Reader((0, "input"), (1, "weight"), 1, spatial=True)
_TRANSPOSED = _Reader((0, "input"), (1, "weight"), 0, spatial=True)
_READERS = {
    **{f"conv{rank}d": _CONV for rank in (1, 2, 3)},
    **{f"conv_transpose{rank}d": _TRANSPOSED for rank in (1, 2, 3)},
    "linear": _Reader((0, "input"), (1, "weight"), 1),
    "matmul": _Reader((0, "input"), (1, "other"), 0),
    "mm": _Reader((0, "input"), (1, "mat2"), 0),
    "addmm": _Reader((1, "mat1"), (2, "mat2"), 0),
}


#: Copying an element of a weight takes about as long as multiplying it at so many positions.
COPY = 16


class NarrowedInputs(TorchFunctionMode):
    """Lets layers read only the channels that are left, which gives what zeros in the others give.

    The filters stay: a network in which both are cut should compute the same. The layers are known
    by their weights, so that no trace is needed. Less is computed than with zeros; where it would
    take longer to copy the weight than to compute with zeros, there are zeros.

    Args:
        kept: By ``id`` of a weight, the dimension that reads channels, and which of its indices
            stay.
        names: The names of the calls of a run, if they are known: a run that makes others cannot be
            compared.

    Attributes:
        unread: ``id`` of the weights that no call has used so far.
    """

    def __init__(
        self, kept: Mapping[int, tuple[int, Tensor]], names: Sequence[str] | None = None
    ) -> None:
        super().__init__()
        self.unread = set(kept)
        self._kept = kept
        self._names = names
        self._calls = 0

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Collection[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Make the call, with the channels that are left if it is a layer that loses some."""
        kwargs = kwargs or {}
        name = call_name(func)
        if name in INERT:
            return func(*args, **kwargs)
        index, self._calls = self._calls, self._calls + 1
        reader = _READERS.get(name)
        weight = None if reader is None else _argument(args, kwargs, reader.weight)
        if reader is None or weight is None or self._kept.get(id(weight), (-1,))[0] != reader.dim:
            return func(*args, **kwargs)
        if self._names is not None and self._names[index : index + 1] != [name]:
            raise ChannelError(f"the forward makes another call in each run: {name}")
        self.unread.discard(id(weight))
        with torch._C.DisableTorchFunction():  # these are not calls of the model
            args, kwargs = self._narrowed(reader, weight, args, kwargs)
        return func(*args, **kwargs)

    def _narrowed(
        self, reader: _Reader, weight: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the arguments of a layer without the channels that go, or with zeros there."""
        kept = self._kept[id(weight)][1].to(weight.device)
        image = _argument(args, kwargs, reader.image)
        channel = reader.channel(image, weight)
        groups = _argument(args, kwargs, (6, "groups")) or 1 if reader.spatial else 1
        size = weight.shape[reader.dim]
        positions = image.numel() // max(1, image.shape[channel])
        if groups > 1 or len(kept) * COPY > (size - len(kept)) * positions:
            gone = torch.ones(size, dtype=torch.bool, device=weight.device)
            gone[kept] = False
            # The groups of a convolution read alike, and would be others without some of them.
            gone = gone.repeat(image.shape[channel] // size).nonzero().flatten()
            return _with(args, kwargs, {reader.image: image.index_fill(channel, gone, 0)})
        less = {
            reader.image: image.index_select(channel, kept),
            reader.weight: weight.index_select(reader.dim, kept),
        }
        return _with(args, kwargs, less)


def _argument(args: tuple[Any, ...], kwargs: Mapping[str, Any], at: tuple[int, str]) -> Any:
    position, name = at
    return args[position] if len(args) > position else kwargs.get(name)


def _with(
    args: tuple[Any, ...], kwargs: dict[str, Any], changes: Mapping[tuple[int, str], Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return arguments of which some are changed."""
    changed, named = list(args), dict(kwargs)
    for (position, name), value in changes.items():
        if len(args) > position:
            changed[position] = value
        else:
            named[name] = value
    return tuple(changed), named
