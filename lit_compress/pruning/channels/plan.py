"""Pruning plans as plain data: which indices of which tensors remain."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from operator import index, lt
from typing import Any

import numpy as np

from lit_compress.errors import PlanError
from lit_compress.pruning.channels.graph import FIXED, ChannelGraph, Key
from lit_compress.pruning.channels.products import without

FORMAT = 1


@dataclass(frozen=True)
class Cut:
    """The indices that remain in one dimension of a tensor.

    Attributes:
        tensor: Name of the parameter or buffer.
        dim: Dimension that is cut, from 0.
        size: Size of the dimension before the cut.
        keep: Indices that remain, rising; at least one.

    Raises:
        PlanError: If ``dim`` is negative, or ``keep`` is empty, not rising or out of range.

    Example:
        >>> Cut("conv.weight", dim=0, size=4, keep=(0, 2)).keep
        (0, 2)
    """

    tensor: str
    dim: int
    size: int
    keep: tuple[int, ...]

    def __post_init__(self) -> None:
        if self.dim < 0:
            raise PlanError(f"the plan cuts dimension {self.dim} of {self.tensor}: count from 0")
        rising = all(map(lt, self.keep, self.keep[1:]))
        if not self.keep or not rising or self.keep[0] < 0 or self.keep[-1] >= self.size:
            raise PlanError(
                f"the plan keeps {len(self.keep)} of {self.size} indices of {self.tensor} "
                f"(dimension {self.dim}): the indices must rise, within 0 to {self.size - 1}, and "
                "at least one must remain"
            )

    @cached_property
    def indices(self) -> np.ndarray:
        """The indices that remain, as an array."""
        return np.fromiter(self.keep, np.int64, len(self.keep))


@dataclass(frozen=True)
class Plan:
    """A plan to remove channels from a network, for :func:`lit_compress.pruning.apply`.

    :func:`make_plan` makes a plan from channel numbers.

    Attributes:
        cuts: The indices that remain, one :class:`Cut` for each dimension that is cut.
        widths: By name, the widths that remain and that no tensor tells, see
            :attr:`lit_compress.pruning.ChannelGraph.widths`.

    Raises:
        PlanError: If one dimension of a tensor is cut twice.

    Example:
        >>> plan = Plan((Cut("conv.weight", dim=0, size=4, keep=(0, 2)),))
        >>> Plan.from_dict(plan.to_dict()) == plan
        True
    """

    cuts: tuple[Cut, ...] = ()
    widths: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        seen: set[Key] = set()
        for cut in self.cuts:
            if (cut.tensor, cut.dim) in seen:
                raise PlanError(f"the plan cuts dimension {cut.dim} of {cut.tensor} twice")
            seen.add((cut.tensor, cut.dim))

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as lists, numbers and text, for JSON or a checkpoint."""
        cuts = [
            {"tensor": c.tensor, "dim": c.dim, "size": c.size, "keep": list(c.keep)}
            for c in self.cuts
        ]
        return {"format": FORMAT, "cuts": cuts, "norms": dict(self.widths)}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Plan:
        """Return the plan that :meth:`to_dict` stored.

        Raises:
            PlanError: If the content is damaged, or of another format.
        """
        try:
            if content["format"] != FORMAT:
                raise PlanError(
                    f"the plan has format {content['format']!r}, this version reads {FORMAT}: use "
                    "the version of lit_compress that wrote it"
                )
            cuts = tuple(
                Cut(
                    str(c["tensor"]),
                    index(c["dim"]),
                    index(c["size"]),
                    tuple(map(index, c["keep"])),
                )
                for c in content["cuts"]
            )
            return cls(cuts, {str(name): index(n) for name, n in content["norms"].items()})
        except Exception as error:  # of whatever kind: the content may be anything
            if isinstance(error, PlanError):
                raise
            raise PlanError(
                f"this is not a pruning plan ({type(error).__name__}: {error}): expected the keys "
                "format, cuts and norms, as Plan.to_dict writes them"
            ) from error

    def by_tensor(self) -> dict[str, dict[int, Cut]]:
        """Return the cuts of each tensor by dimension."""
        cuts: dict[str, dict[int, Cut]] = {}
        for cut in self.cuts:
            cuts.setdefault(cut.tensor, {})[cut.dim] = cut
        return cuts


def make_plan(graph: ChannelGraph, removed: Iterable[int]) -> Plan:
    """Return the plan that removes the given channels.

    Args:
        graph: Channels of the network.
        removed: Numbers of the channels to remove, from ``graph.channels``.

    Raises:
        PlanError: If a number is not the number of a channel, or a tensor would lose all indices.

    Example:
        >>> from torch import nn, ones
        >>> from lit_compress.pruning import analyse
        >>> graph = analyse(nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)), ones(1, 3))
        >>> for cut in make_plan(graph, removed=[1]).cuts:
        ...     print(cut)
        Cut(tensor='0.weight', dim=0, size=4, keep=(0, 2, 3))
        Cut(tensor='0.bias', dim=0, size=4, keep=(0, 2, 3))
        Cut(tensor='1.weight', dim=1, size=4, keep=(0, 2, 3))
    """
    removed = list(removed)
    if not removed:
        return Plan()
    _check_numbers(graph, removed)
    dropped = np.zeros(graph.channel_count + 1, bool)  # FIXED is the index of the last entry
    dropped[removed] = True
    dropped[FIXED] = False
    cuts = []
    #: Tensors that are cut together share their indices.
    left: dict[tuple[int, bytes], tuple[int, ...]] = {}
    for (tensor, dim), channels in graph.channel_of.items():
        which = len(channels), channels.tobytes()
        if which not in left:
            left[which] = tuple(np.flatnonzero(~dropped[channels]).tolist())
        if len(left[which]) < len(channels):
            cuts.append(Cut(tensor, dim, len(channels), left[which]))
    widths = {
        name: int((~dropped[channels]).sum())
        for name, channels in graph.widths.items()
        if dropped[channels].any()
    }
    return Plan(tuple(cuts), widths)


def _check_numbers(graph: ChannelGraph, numbers: list[int]) -> None:
    """Check that numbers are those of channels.

    Raises:
        PlanError: If one is not.
    """
    together = np.asarray(numbers)
    known = together.dtype.kind in "iu" and together.ndim == 1
    if known and together.min() >= 0 and together.max() < graph.channel_count:
        return
    for number in numbers:
        if not isinstance(number, (int, np.integer)) or not 0 <= number < graph.channel_count:
            raise PlanError(
                f"there is no channel {number!r}: graph.channels lists the numbers, from 0 to "
                f"{graph.channel_count - 1}"
            )


def restrict(graph: ChannelGraph, plan: Plan) -> ChannelGraph:
    """Return the channel graph of a network after a plan was applied to it.

    The remaining channels keep their numbers.

    Args:
        graph: Channels of the network before the plan was applied.
        plan: The plan.

    Raises:
        PlanError: If the plan was made for a network with other shapes.

    Example:
        >>> from torch import nn, ones
        >>> from lit_compress.pruning import analyse
        >>> graph = analyse(nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)), ones(1, 3))
        >>> restrict(graph, make_plan(graph, removed=[1])).channels
        (0, 2, 3)
    """
    if not plan.cuts:
        return graph
    channel_of, shapes = dict(graph.channel_of), dict(graph.shapes)
    removed: set[int] = set()
    for cut in plan.cuts:
        key: Key = (cut.tensor, cut.dim)
        if key not in channel_of or len(channel_of[key]) != cut.size:
            raise PlanError(
                f"the plan cuts {cut.tensor} (dimension {cut.dim}, size {cut.size}), which this "
                "network does not have: make a plan for this network, since this one is for "
                "another network"
            )
        kept = channel_of[key][cut.indices]
        removed |= set(channel_of[key].tolist()) - set(kept.tolist())
        channel_of[key] = kept
        shape = list(shapes[cut.tensor])
        shape[cut.dim] = len(cut.keep)
        shapes[cut.tensor] = tuple(shape)
    groups = (
        replace(group, channels=tuple(n for n in group.channels if n not in removed))
        for group in graph.groups
    )
    widths = {
        name: channels[~np.isin(channels, list(removed))] if removed else channels
        for name, channels in graph.widths.items()
    }
    return replace(
        graph,
        channel_of=channel_of,
        shapes=shapes,
        groups=tuple(groups),
        widths=widths,
        products=without(graph.products, removed),
    )
