"""The channels of a network as data: coupled channels, frozen channels and the reasons."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lit_compress.errors import PlanError
from lit_compress.pruning.channels.tracing.labels import Reason
from lit_compress.pruning.layers import owner_of

Key = tuple[str, int]
ROLES = ("filter", "depthwise", "input", "scale", "copy")
#: In :attr:`ChannelGraph.channel_of`, an index that cannot be removed.
FIXED = -1


@dataclass(frozen=True)
class Slice:
    """Part of a tensor that belongs to a channel, and is removed together with it.

    Attributes:
        tensor: Name of the parameter or buffer.
        dim: Dimension that is cut.
        indices: Indices of the dimension that belong to the channel, rising.
        role: What the tensor does with the channel: ``filter`` makes it, ``depthwise`` is a filter
            of a depthwise convolution, ``input`` reads it, ``scale`` is one value for it (bias,
            norm, gate), ``copy`` is the same part of a follower (an average of the network).

    Example:
        >>> import torch
        >>> from lit_compress.pruning import analyse
        >>> graph = analyse(torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2)),
        ...                 torch.ones(1, 3))
        >>> for part in graph.slices(graph.channels[1]):
        ...     print(part)
        Slice(tensor='0.weight', dim=0, indices=(1,), role='filter')
        Slice(tensor='0.bias', dim=0, indices=(1,), role='scale')
        Slice(tensor='1.weight', dim=1, indices=(1,), role='input')
    """

    tensor: str
    dim: int
    indices: tuple[int, ...]
    role: str


@dataclass(frozen=True)
class Group:
    """Channels that cut the same tensors, and are ranked against each other.

    Attributes:
        name: Name of the first layer that makes the channels.
        channels: Numbers of the channels.
        keys: Tensors and dimensions that the channels cut, as (name, dimension).

    Example:
        >>> import torch
        >>> from lit_compress.pruning import analyse
        >>> graph = analyse(torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2)),
        ...                 torch.ones(1, 3))
        >>> graph.groups[0].name, graph.groups[0].channels
        ('0', (0, 1, 2, 3))
        >>> graph.groups[0].keys
        (('0.weight', 0), ('0.bias', 0), ('1.weight', 1))
    """

    name: str
    channels: tuple[int, ...]
    keys: tuple[Key, ...]


@dataclass(frozen=True)
class Frozen:
    """Channels of a layer that cannot be removed.

    Attributes:
        tensor: Name of the weight that makes the channels.
        dim: Dimension of the weight along which the channels lie.
        indices: Indices of the channels, rising.
        reason: Why the channels cannot be removed; ``str(reason)`` names the operation, the module
            and the source line, where they are known.

    Example:
        >>> import torch
        >>> from lit_compress.pruning import analyse
        >>> graph = analyse(torch.nn.Linear(3, 2), torch.ones(1, 3))
        >>> for part in graph.frozen:
        ...     print(f"{part.tensor} {part.indices}: {part.reason}")
        weight (0, 1): is an output of the network
    """

    tensor: str
    dim: int
    indices: tuple[int, ...]
    reason: Reason


@dataclass(frozen=True)
class Product:
    """Products of two activations, as in an attention, whose size follows channels.

    Attributes:
        macs: Their multiply-accumulates for one example, with all channels.
        channels: By part of the product, its channel; -1 for a part that cannot be removed. The
            parts are of one size.
    """

    macs: int
    channels: np.ndarray

    def saved(self, dropped: np.ndarray) -> int:
        """Return the MACs that channels take with them.

        Args:
            dropped: By channel number, whether it is removed; False in the last place.
        """
        return self.macs * int(dropped[self.channels].sum()) // len(self.channels)

    def to_dict(self) -> dict[str, Any]:
        """Return the products as a number and a tensor for a checkpoint."""
        return {"macs": self.macs, "channels": _tensor(self.channels)}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Product:
        """Return the products that :meth:`to_dict` stored."""
        return cls(int(content["macs"]), _array(content["channels"]))


@dataclass(frozen=True)
class ChannelGraph:
    """The channels of a network: which tensor slices belong together, and which are frozen.

    One channel is the set of all tensor slices that must be removed together. Channels have numbers
    from 0. :func:`lit_compress.pruning.analyse` makes the graph of a network.

    Attributes:
        channel_of: By (tensor name, dimension), an integer array with the channel of each index;
            -1 for indices that cannot be removed.
        roles: By (tensor name, dimension), what the tensor does with the channels, see
            :class:`Slice`.
        groups: The channels that can be removed, grouped by the tensors that they cut.
        frozen: The channels that cannot be removed, with the reason.
        shapes: By tensor name, the shapes of the tensors that can be cut.
        positions: By weight name, the number of output positions where the weight is applied for
            one example; a fraction of one where a part of the weight is. Positions times the size
            of the weight are its MACs.
        products: The products of two activations, as in an attention, whose size follows channels.
        min_indices: By (tensor name, dimension), the number of indices that must remain, where it
            is more than one.
        widths: The widths that no tensor tells, with the channel of each index, as in
            ``channel_of``: by name of a norm module without parameters and buffers, or of a whole
            number among the attributes of a module (the heads of an attention).
        channel_count: Number of channels before any was removed; all channel numbers are below it.
        normed: Whether weights are normalised anew over what is left (``weight_norm``): zeros in
            the place of channels then give another network, or none.
        approximate: Whether norms over all channels let some of them go, see
            :func:`lit_compress.pruning.analyse`.

    Example:
        >>> from torch import nn
        >>> from lit_compress.pruning import analyse
        >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 3))
        >>> graph = analyse(net, torch.ones(1, 3, 8, 8))
        >>> graph.channels
        (0, 1, 2, 3)
        >>> graph.channel_of["2.weight", 1]
        array([0, 1, 2, 3])
        >>> [str(part.reason) for part in graph.frozen]
        ['is an output of the network']
    """

    channel_of: Mapping[Key, np.ndarray]
    roles: Mapping[Key, str]
    groups: tuple[Group, ...]
    frozen: tuple[Frozen, ...]
    shapes: Mapping[str, tuple[int, ...]]
    positions: Mapping[str, Fraction] = field(default_factory=dict)
    products: tuple[Product, ...] = ()
    min_indices: Mapping[Key, int] = field(default_factory=dict)
    widths: Mapping[str, np.ndarray] = field(default_factory=dict)
    channel_count: int = 0
    approximate: bool = False
    normed: bool = False

    @property
    def channels(self) -> tuple[int, ...]:
        """Numbers of the channels that can be removed, group by group."""
        return tuple(number for group in self.groups for number in group.channels)

    def to_dict(self) -> dict[str, Any]:
        """Return the graph as text, numbers and tensors for a checkpoint, without ``frozen``."""
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
            "work": {name: _number(count) for name, count in self.positions.items()},
            "floors": [[name, dim, least] for (name, dim), least in self.min_indices.items()],
            "norms": {name: _tensor(channels) for name, channels in self.widths.items()},
            **({"approximate": True} if self.approximate else {}),
            **({"products": [p.to_dict() for p in self.products]} if self.products else {}),
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> ChannelGraph:
        """Return the graph that :meth:`to_dict` stored.

        Raises:
            PlanError: If the content is damaged.
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
                positions={str(name): _fraction(n) for name, n in content["work"].items()},
                min_indices={(str(n), int(dim)): int(least) for n, dim, least in content["floors"]},
                widths={str(name): _array(channels) for name, channels in content["norms"].items()},
                channel_count=count_of(channel_of),
                approximate=content.get("approximate", False) is True,
                # Older checkpoints have none: their number of MACs is without them.
                products=tuple(map(Product.from_dict, content.get("products", ()))),
            )
            _check(graph)
            return graph
        except Exception as error:  # of whatever kind: the content may be anything
            raise PlanError(
                f"the channels in the checkpoint are damaged ({type(error).__name__}: {error}): "
                "load another checkpoint"
            ) from error

    def slices(self, number: int) -> tuple[Slice, ...]:
        """Return the tensor slices of a channel, given its number."""
        slices = []
        for (tensor, dim), channels in self.channel_of.items():
            indices = np.flatnonzero(channels == number)
            if len(indices):
                slices.append(Slice(tensor, dim, tuple(indices.tolist()), self.roles[tensor, dim]))
        return tuple(slices)

    def removable(self, group: Group) -> int:
        """Return how many channels of a group can be removed at most.

        At least one channel remains, and more where ``min_indices`` requires it.
        """
        return removable_of(self.channel_of, self.min_indices, group)

    def filters(self) -> np.ndarray:
        """Return, by channel, its number of filters in conv and linear layers."""
        made = [
            channels[channels >= 0]
            for key, channels in self.channel_of.items()
            if self.roles[key] in ("filter", "depthwise")
        ]
        every = np.concatenate([np.empty(0, np.int64), *made])
        return np.bincount(every, minlength=self.channel_count)


def removable_of(
    channel_of: Mapping[Key, np.ndarray], min_indices: Mapping[Key, int], group: Group
) -> int:
    """Return how many channels of a group can be removed at most.

    Args:
        channel_of: As in :class:`ChannelGraph`.
        min_indices: As in :class:`ChannelGraph`.
        group: The group.
    """
    most = len(group.channels) - 1
    for key in group.keys:
        if key in min_indices and group.channels:
            each = int((channel_of[key] == group.channels[0]).sum())
            most = min(most, (len(channel_of[key]) - min_indices[key]) // each)
    return max(0, most)


def count_of(channel_of: Mapping[Key, np.ndarray]) -> int:
    """Return the number of channels: the highest channel number plus one."""
    return 1 + max((int(channels.max(initial=-1)) for channels in channel_of.values()), default=-1)


def _number(count: Fraction) -> int | list[int]:
    """Return positions as plain numbers for a checkpoint."""
    whole = count.denominator == 1
    return count.numerator if whole else [count.numerator, count.denominator]


def _fraction(stored: Any) -> Fraction:
    return Fraction(*map(int, stored)) if isinstance(stored, list) else Fraction(int(stored))


def _tensor(channels: np.ndarray) -> Tensor:
    return torch.from_numpy(channels.astype(np.int32))


def _array(stored: Tensor) -> np.ndarray:
    channels: np.ndarray = stored.numpy()
    if channels.ndim != 1 or channels.dtype.kind != "i" or channels.min(initial=FIXED) < FIXED:
        raise ValueError("channels must be a vector of whole numbers of at least -1")
    return channels


def _check(graph: ChannelGraph) -> None:
    """Check that the parts of a stored graph agree with each other.

    Raises:
        ValueError: If they do not agree.
    """
    for (name, dim), channels in graph.channel_of.items():
        shape = graph.shapes[name]
        if not 0 <= dim < len(shape) or shape[dim] != len(channels):
            raise ValueError(f"{len(channels)} channels for dimension {dim} of {name} {shape}")
        if graph.roles[name, dim] not in ROLES:
            raise ValueError(f"{name} has the role {graph.roles[name, dim]!r}")
    counted = [*graph.widths.values(), *(product.channels for product in graph.products)]
    if any(channels.max(initial=FIXED) >= graph.channel_count for channels in counted):
        raise ValueError("a width or a product has channels that no weight has")
    if any(product.macs < 0 or not len(product.channels) for product in graph.products):
        raise ValueError("a product has no parts, or fewer MACs than none")


def grouped(channel_of: Mapping[Key, np.ndarray], roles: Mapping[Key, str]) -> tuple[Group, ...]:
    """Return the groups of channels that cut the same tensors.

    Args:
        channel_of: As in :class:`ChannelGraph`.
        roles: As in :class:`ChannelGraph`.
    """
    # Many tensors are cut by the same channels, so each array of channels is looked at once.
    arrays: dict[tuple[int, bytes], int] = {}
    keys_of: list[list[tuple[int, Key]]] = []  # by array, its keys with their places
    channels_of: list[np.ndarray] = []
    for place, (key, channels) in enumerate(channel_of.items()):
        which = arrays.setdefault((len(channels), channels.tobytes()), len(arrays))
        if which == len(keys_of):
            keys_of.append([])
            channels_of.append(np.unique(channels[channels >= 0]))
        keys_of[which].append((place, key))
    # list_of: for each channel, the index of the list of arrays that it is in. Each array extends
    # the lists of its channels. Channels are positions in known, since channel numbers of a damaged
    # checkpoint can be huge, and a vector of that size would exhaust memory.
    lists: list[tuple[int, ...]] = [()]
    known = np.unique(np.concatenate([np.empty(0, np.int64), *channels_of]))
    list_of = np.zeros(len(known), np.int64)
    for which, numbers in enumerate(channels_of):
        members = np.searchsorted(known, numbers)
        before, position = np.unique(list_of[members], return_inverse=True)
        list_of[members] = len(lists) + position
        lists += [(*lists[number], which) for number in before.tolist()]
    groups = []
    used, first, group_of = np.unique(list_of, return_index=True, return_inverse=True)
    for index in np.argsort(first).tolist():
        places = sorted(pair for which in lists[used[index]] for pair in keys_of[which])
        keys = tuple(key for _, key in places)
        if keys:
            maker = next((name for name, dim in keys if roles[name, dim] == "filter"), keys[0][0])
            numbers = known[group_of == index]
            groups.append(Group(owner_of(maker) or maker, tuple(numbers.tolist()), keys))
    return tuple(groups)
