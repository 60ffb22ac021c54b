"""The channels of a network as data: which go together, which cannot go, and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lit_compress.errors import PlanError
from lit_compress.pruning.channels.labels import Reason

Key = tuple[str, int]
ROLES = ("filter", "depthwise", "input", "scale")
#: In an owner array, an index that cannot go.
FIXED = -1


@dataclass(frozen=True)
class Slice:
    """Part of a tensor that goes with a channel class.

    Attributes:
        tensor: Name of the parameter or buffer.
        dim: Dimension that is cut.
        indices: Indices that go.
        role: ``filter``, ``depthwise``, ``input`` or ``scale``.
    """

    tensor: str
    dim: int
    indices: tuple[int, ...]
    role: str


@dataclass(frozen=True)
class Group:
    """Channel classes that cut the same tensors, and so are ranked against each other.

    Attributes:
        name: Name of the first layer that makes its channels.
        classes: The numbers of its classes.
        keys: The tensors and dimensions that they cut.
    """

    name: str
    channels: tuple[int, ...]
    keys: tuple[Key, ...]


@dataclass(frozen=True)
class Frozen:
    """Channels of a layer that cannot go.

    Attributes:
        tensor: Name of the weight that makes them.
        dim: Its dimension.
        indices: Their indices.
        reason: What stands in the way.
    """

    tensor: str
    dim: int
    indices: tuple[int, ...]
    reason: Reason


@dataclass(frozen=True)
class ChannelGraph:
    """The channels of a network: which go together, and which cannot go.

    Attributes:
        owners: By tensor and dimension, the class of each index; :data:`FIXED` cannot go.
        roles: By tensor and dimension, what it does with the channels (see :class:`Slice`).
        groups: The classes that can go, by the tensors they cut.
        frozen: The channels that cannot go, with the reason.
        shapes: Shapes of the tensors that can be cut.
        work: By weight, the positions it is applied at for the example: MACs are these times its
            size.
        floors: By tensor and dimension, indices that must stay where more than one must.
        norms: Norm modules without tensors of their own, and the class of each of their channels.
        channel_count: How many classes there were; their numbers are below it.
    """

    channel_of: Mapping[Key, np.ndarray]
    roles: Mapping[Key, str]
    groups: tuple[Group, ...]
    frozen: tuple[Frozen, ...]
    shapes: Mapping[str, tuple[int, ...]]
    positions: Mapping[str, int] = field(default_factory=dict)
    min_indices: Mapping[Key, int] = field(default_factory=dict)
    norms: Mapping[str, np.ndarray] = field(default_factory=dict)
    channel_count: int = 0

    @property
    def channels(self) -> tuple[int, ...]:
        """Numbers of the classes that can go."""
        return tuple(number for group in self.groups for number in group.channels)

    def to_dict(self) -> dict[str, Any]:
        """Return what can go as text, numbers and tensors, for a checkpoint; without reasons."""
        return {
            "owners": [
                {
                    "tensor": name,
                    "dim": dim,
                    "role": self.roles[name, dim],
                    "classes": _tensor(channels),
                }
                for (name, dim), channels in self.channel_of.items()
            ],
            "shapes": {name: list(shape) for name, shape in self.shapes.items()},
            "work": dict(self.positions),
            "floors": [[name, dim, least] for (name, dim), least in self.min_indices.items()],
            "norms": {name: _tensor(channels) for name, channels in self.norms.items()},
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> ChannelGraph:
        """Return the graph that :meth:`to_dict` gave.

        Raises:
            PlanError: If it is not one.
        """
        try:
            rows = content["owners"]
            channel_of = {(str(r["tensor"]), int(r["dim"])): _array(r["classes"]) for r in rows}
            roles = {(str(r["tensor"]), int(r["dim"])): str(r["role"]) for r in rows}
            graph = cls(
                channel_of=channel_of,
                roles=roles,
                groups=grouped(channel_of, roles),
                frozen=(),
                shapes={str(n): tuple(map(int, s)) for n, s in content["shapes"].items()},
                positions={str(name): int(n) for name, n in content["work"].items()},
                min_indices={(str(n), int(dim)): int(least) for n, dim, least in content["floors"]},
                norms={str(name): _array(channels) for name, channels in content["norms"].items()},
                channel_count=count_of(channel_of),
            )
            _check(graph)
            return graph
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise PlanError(
                f"the checkpoint's channels are damaged ({type(error).__name__}: {error})"
            ) from error

    def slices(self, number: int) -> tuple[Slice, ...]:
        """Return the parts of tensors that go with a class."""
        found = []
        for (tensor, dim), channels in self.channel_of.items():
            indices = np.flatnonzero(channels == number)
            if len(indices):
                found.append(Slice(tensor, dim, tuple(indices.tolist()), self.roles[tensor, dim]))
        return tuple(found)

    def removable(self, group: Group) -> int:
        """Return how many classes of a group can go at most: one stays, and what floors ask for."""
        return removable_of(self.channel_of, self.min_indices, group)

    def filters(self) -> np.ndarray:
        """Return, by class, how many filters of conv and linear layers it holds."""
        count = np.zeros(self.channel_count, np.int64)
        for key, channels in self.channel_of.items():
            if self.roles[key] in ("filter", "depthwise"):
                count += np.bincount(channels[channels >= 0], minlength=self.channel_count)
        return count


def removable_of(
    channel_of: Mapping[Key, np.ndarray], min_indices: Mapping[Key, int], group: Group
) -> int:
    """Return how many classes of a group can go at most."""
    most = len(group.channels) - 1
    for key in group.keys:
        if key in min_indices and group.channels:
            each = int((channel_of[key] == group.channels[0]).sum())
            most = min(most, (len(channel_of[key]) - min_indices[key]) // each)
    return max(0, most)


def count_of(channel_of: Mapping[Key, np.ndarray]) -> int:
    """Return how many classes there are, by their highest number."""
    return 1 + max((int(channels.max(initial=-1)) for channels in channel_of.values()), default=-1)


def _tensor(channels: np.ndarray) -> Tensor:
    return torch.from_numpy(channels.astype(np.int32))


def _array(stored: Tensor) -> np.ndarray:
    channels: np.ndarray = stored.numpy()
    if channels.ndim != 1 or channels.dtype.kind != "i" or channels.min(initial=FIXED) < FIXED:
        raise ValueError("channels must be whole numbers in one dimension")
    return channels


def _check(graph: ChannelGraph) -> None:
    """Make sure that the parts of a stored graph agree.

    Raises:
        ValueError: If they do not.
    """
    for (name, dim), channels in graph.channel_of.items():
        shape = graph.shapes[name]
        if not 0 <= dim < len(shape) or shape[dim] != len(channels):
            raise ValueError(f"{len(channels)} classes for dimension {dim} of {name}, {shape}")
        if graph.roles[name, dim] not in ROLES:
            raise ValueError(f"{name} has the role {graph.roles[name, dim]!r}")
    if any(channels.max(initial=FIXED) >= graph.channel_count for channels in graph.norms.values()):
        raise ValueError("a norm has classes that no weight has")


def grouped(channel_of: Mapping[Key, np.ndarray], roles: Mapping[Key, str]) -> tuple[Group, ...]:
    """Return the groups of classes that cut the same tensors."""
    # Each channel has the number of a list of keys, which grows key by key. Channels are looked up,
    # since those of a damaged checkpoint may have any number.
    lists: list[tuple[Key, ...]] = [()]
    known = np.unique(np.concatenate([np.empty(0, np.int64), *channel_of.values()]))
    known = known[known >= 0]
    list_of = np.zeros(len(known), np.int64)
    for key, channels in channel_of.items():
        members = np.searchsorted(known, np.unique(channels[channels >= 0]))
        before, place = np.unique(list_of[members], return_inverse=True)
        list_of[members] = len(lists) + place
        lists += [(*lists[number], key) for number in before.tolist()]
    groups = []
    found, first, group_of = np.unique(list_of, return_index=True, return_inverse=True)
    for index in np.argsort(first).tolist():
        keys = lists[found[index]]
        if keys:
            maker = next((name for name, dim in keys if roles[name, dim] == "filter"), keys[0][0])
            numbers = known[group_of == index]
            module = maker.rpartition(".")[0] or maker
            groups.append(Group(module, tuple(numbers.tolist()), keys))
    return tuple(groups)
