"""What to cut out of which tensor, as plain data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from operator import index
from typing import Any

import numpy as np

from lit_compress.errors import PlanError
from lit_compress.pruning.channels.graph import FIXED, ChannelGraph, Key

FORMAT = 1


@dataclass(frozen=True)
class Cut:
    """What stays of one dimension of a tensor.

    Attributes:
        tensor: Name of the parameter or buffer.
        dim: The dimension that is cut.
        size: Its size before the cut.
        keep: The indices that stay, rising.
    """

    tensor: str
    dim: int
    size: int
    keep: tuple[int, ...]

    def __post_init__(self) -> None:
        if self.dim < 0:
            raise PlanError(f"the plan cuts dimension {self.dim} of {self.tensor}: count from 0")
        rising = all(a < b for a, b in zip(self.keep, self.keep[1:], strict=False))
        if not self.keep or not rising or self.keep[0] < 0 or self.keep[-1] >= self.size:
            raise PlanError(
                f"the plan keeps {len(self.keep)} of {self.size} indices of {self.tensor} "
                f"(dimension {self.dim}): they must rise from 0 to {self.size - 1} at most, and "
                "one must stay"
            )


@dataclass(frozen=True)
class Plan:
    """Which channels to remove from a network; apply it with :func:`lit_compress.pruning.apply`.

    Attributes:
        cuts: What stays of each tensor that loses something.
        norms: Channels that stay in norm modules that have no tensor to tell it by.
    """

    cuts: tuple[Cut, ...] = ()
    norms: Mapping[str, int] = field(default_factory=dict)

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
        return {"format": FORMAT, "cuts": cuts, "norms": dict(self.norms)}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Plan:
        """Return the plan that :meth:`to_dict` gave.

        Raises:
            PlanError: If it is not one.
        """
        try:
            if content["format"] != FORMAT:
                raise PlanError(
                    f"the plan has format {content['format']!r}, this version reads {FORMAT}"
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
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            if isinstance(error, PlanError):
                raise
            raise PlanError(
                f"this is no pruning plan ({type(error).__name__}: {error}): expected format, cuts "
                "and norms, as Plan.to_dict gives them"
            ) from error

    def by_tensor(self) -> dict[str, dict[int, Cut]]:
        """Return the cuts of each tensor by dimension."""
        found: dict[str, dict[int, Cut]] = {}
        for cut in self.cuts:
            found.setdefault(cut.tensor, {})[cut.dim] = cut
        return found


def make_plan(graph: ChannelGraph, removed: Iterable[int]) -> Plan:
    """Return the plan that removes channel classes.

    Args:
        graph: The network's channels.
        removed: Numbers of the channels to remove.

    Raises:
        PlanError: If one is no number of a class, or all channels of a tensor would go.
    """
    removed = list(removed)
    for number in removed:
        if not isinstance(number, (int, np.integer)) or not 0 <= number < graph.channel_count:
            raise PlanError(
                f"there is no channel class {number!r}: their numbers are in graph.groups, from 0 "
                f"to {graph.channel_count - 1}"
            )
    dropped = np.zeros(graph.channel_count + 1, bool)  # the last is looked up by FIXED
    dropped[removed] = True
    dropped[FIXED] = False
    cuts = []
    for (tensor, dim), channels in graph.channel_of.items():
        keep = np.flatnonzero(~dropped[channels])
        if len(keep) < len(channels):
            cuts.append(Cut(tensor, dim, len(channels), tuple(keep.tolist())))
    norms = {
        name: int((~dropped[channels]).sum())
        for name, channels in graph.norms.items()
        if dropped[channels].any()
    }
    return Plan(tuple(cuts), norms)


def restrict(graph: ChannelGraph, plan: Plan) -> ChannelGraph:
    """Return the graph of the network that a plan leaves; classes keep their numbers.

    Raises:
        PlanError: If the plan is for a network of other shapes.
    """
    channel_of, shapes = dict(graph.channel_of), dict(graph.shapes)
    removed: set[int] = set()
    for cut in plan.cuts:
        key: Key = (cut.tensor, cut.dim)
        if key not in channel_of or len(channel_of[key]) != cut.size:
            raise PlanError(
                f"the plan cuts {cut.tensor} (dimension {cut.dim}) of size {cut.size}, which this "
                "network does not have: it is a plan for another network"
            )
        kept = channel_of[key][list(cut.keep)]
        removed |= set(channel_of[key].tolist()) - set(kept.tolist())
        channel_of[key] = kept
        shape = list(shapes[cut.tensor])
        shape[cut.dim] = len(cut.keep)
        shapes[cut.tensor] = tuple(shape)
    groups = (
        replace(group, channels=tuple(n for n in group.channels if n not in removed))
        for group in graph.groups
    )
    norms = {
        name: channels[~np.isin(channels, list(removed))] if removed else channels
        for name, channels in graph.norms.items()
    }
    return replace(graph, channel_of=channel_of, shapes=shapes, groups=tuple(groups), norms=norms)
