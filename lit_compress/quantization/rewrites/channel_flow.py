"""Follow the channels of a captured graph from what makes each to what reads it."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Interpreter, Node

from lit_compress.quantization.operations import (
    AVERAGES,
    CHOICES,
    CONCATENATIONS,
    HOMOGENEOUS,
    MOVEMENTS,
    NORMS,
    WEIGHTED,
    aten,
    channel_dim,
)

#: Layers whose weight has the output channels along its second axis.
TRANSPOSED = {
    aten.conv_transpose1d.default,
    aten.conv_transpose2d.input,
    aten.matmul.default,
}


@dataclass(frozen=True)
class Read:
    """A weight that reads channels.

    Attributes:
        weight: The weight.
        dim: Its dimension along which they lie.
        channels: Their numbers.
        alone: Whether each of its filters reads one channel.
    """

    weight: Tensor
    dim: int
    channels: Tensor
    alone: bool


class ChannelFlow(Interpreter):
    """One run that follows each channel from the layer that makes it to those that read it.

    Args:
        graph: The captured graph.

    Attributes:
        count: How many channels were made.
        made: By node that makes channels, the number of its first.
        frozen: Channels that must stay as they are.
        reads: The weights that read channels.
        joins: Channels that are brought together into one activation.
    """

    def __init__(self, graph: GraphModule) -> None:
        super().__init__(graph)
        self.extra_traceback = False
        self.count = 0
        self.made: dict[Node, int] = {}
        self._channels: dict[Node, Any] = {}
        self.frozen: list[Tensor] = []
        self.reads: list[Read] = []
        self._writes: list[tuple[Tensor, int]] = []
        self.joins: list[Tensor] = []
        self._uses: dict[int, int] = {}
        self._names: dict[int, str] = {}
        for node in graph.graph.nodes:
            for source in node.all_input_nodes:
                if isinstance(tensor := self._attribute(source), Tensor):
                    self._names[id(tensor)] = str(source.target)
                    self._uses[id(tensor)] = self._uses.get(id(tensor), 0) + 1

    def run_node(self, n: Node) -> Any:
        """Run one node, and follow the channels of what it takes."""
        value = super().run_node(n)
        followed = [node for node in n.all_input_nodes if node in self._channels]
        if n.target in WEIGHTED and n.target not in TRANSPOSED and self._weight(n) is not None:
            self._read(n, self._weight(n))
            self._make(n, value)
        elif n.target in NORMS:
            self._freeze(*followed)
            self._make(n, value)
        elif n.target in CONCATENATIONS and self._all_followed(n.args[0]):
            parts: Any = n.args[0]
            self._channels[n] = torch.cat([self._channels[p] for p in parts], _axis(n))
            self.joins.append(self._channels[n].unique())
        elif followed and n.target in HOMOGENEOUS:
            self._channels[n] = self._channels[followed[0]]
        elif followed and n.target in MOVEMENTS and n.args[0] is followed[0]:
            args, kwargs = self.fetch_args_kwargs_from_env(n)
            move: Any = n.target
            self._channels[n] = move(self._channels[followed[0]], *args[1:], **kwargs)
        elif followed and (n.target in CHOICES or n.target in AVERAGES):
            self._pool(n, followed[0], value)
        else:
            self._freeze(*followed)
        return value

    def factors(self, scales: Tensor) -> dict[str, Tensor]:
        """Return what tensors are multiplied with: makers by 1 / scale, and readers by the scale.

        Args:
            scales: Of all channels.
        """
        found: dict[str, Tensor] = {}
        scales = scales.double()

        def multiply(tensor: Tensor, values: Tensor, dim: int) -> None:
            name = self._names[id(tensor)]
            along = _along(values.to(tensor.dtype), tensor, dim)
            found[name] = found[name] * along if name in found else along

        for tensor, start in self._writes:
            multiply(tensor, 1 / scales[start : start + len(tensor)], 0)
        for read in self.reads:
            multiply(read.weight, scales[read.channels], read.dim)
        return {name: factor for name, factor in found.items() if bool((factor != 1).any())}

    def makers(self) -> list[tuple[int, int]]:
        """Return, for each node that makes channels, the number of its first, and how many."""
        return [(start, end - start) for start, end in pairwise([*self.made.values(), self.count])]

    def _make(self, node: Node, value: Tensor) -> None:
        """Number the channels that a layer or norm makes."""
        dim = channel_dim(node, value)
        size, start = value.shape[dim], self.count
        numbers = torch.arange(start, start + size, dtype=torch.float64)
        self.made[node], self.count = start, start + size
        self._channels[node] = _along(numbers, value, dim).expand(value.shape)
        own = [self._attribute(source) for source in node.args[1:3] if source is not None]
        if not own or not all(self._is_alone(tensor) and len(tensor) == size for tensor in own):
            self._freeze(node)
        else:
            self._writes += [(tensor, start) for tensor in own]

    def _read(self, node: Node, weight: Tensor) -> None:
        """Note which channel each input of a layer is, where each is one."""
        source = node.args[0]
        if not isinstance(source, Node) or source not in self._channels:
            return
        channels = self._channels[source]
        rows = channels.movedim(channel_dim(node, channels), 0).flatten(1)
        groups = node.args[6] if len(node.args) > 6 else 1
        alone = groups != 1 and weight.shape[1] == 1
        one_each = bool((rows == rows[:, :1]).all())
        if not one_each or not (groups == 1 or alone) or not self._is_alone(weight):
            self._freeze(source)
        elif alone:
            numbers = rows[:, 0].long().repeat_interleave(len(weight) // len(rows))
            self.reads.append(Read(weight, 0, numbers, alone=True))
        else:
            self.reads.append(Read(weight, 1, rows[:, 0].long(), alone=False))

    def _pool(self, node: Node, source: Node, value: Tensor) -> None:
        channels = self._channels[source]
        rows = channels.flatten(2) if channels.dim() > 2 else channels[..., None]
        same = value.shape[:2] == channels.shape[:2] and _is_spatial(node, channels)
        if same and bool((rows == rows[..., :1]).all()):
            shape = (*rows.shape[:2], *[1] * (value.dim() - 2))
            self._channels[node] = rows[..., 0].view(shape).expand(value.shape)
        else:
            self._freeze(source)

    def _freeze(self, *nodes: Node) -> None:
        for node in nodes:
            followed = self._channels[node]
            for channels in followed if isinstance(followed, (tuple, list)) else [followed]:
                self.frozen.append(channels.unique())

    def _all_followed(self, parts: Any) -> bool:
        return isinstance(parts, (list, tuple)) and all(part in self._channels for part in parts)

    def _weight(self, node: Node) -> Any:
        return self._attribute(node.args[1])

    def _attribute(self, node: Any) -> Any:
        if not isinstance(node, Node) or node.op != "get_attr":
            return None
        return self.fetch_attr(str(node.target))

    def _is_alone(self, tensor: Any) -> bool:
        """Tell whether a tensor of the model is used in one place."""
        return isinstance(tensor, Tensor) and self._uses[id(tensor)] == 1


def _is_spatial(pool: Node, image: Tensor) -> bool:
    """Tell whether a pool or mean leaves batch and channels alone."""
    if pool.target is not aten.mean.dim:
        return image.dim() > 2
    dims: Any = pool.args[1]
    return bool(dims) and all(dim % image.dim() > 1 for dim in dims)


def _axis(cat: Node) -> int:
    dim = cat.args[1] if len(cat.args) > 1 else cat.kwargs.get("dim", 0)
    return dim if isinstance(dim, int) else 0


def _along(values: Tensor, like: Tensor, dim: int) -> Tensor:
    """Return values shaped to stand along one dimension of another tensor."""
    shape = [1] * like.dim()
    shape[dim] = -1
    return values.view(shape)
