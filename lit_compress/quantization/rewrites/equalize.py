"""Equalisation: channels of one activation brought nearer to one range, without any other change.

An activation has one range, so a channel that is 64 times smaller than the largest is left two of
its eight bits. What makes a channel is divided by a number, and what reads it multiplied: between
them stand only operations that let a positive factor pass (Nagel et al. 2019, arXiv 1906.04721,
section 4.1). A share of the difference is moved into the weights (Xiao et al. 2023, arXiv
2211.10438, whose alpha it is), all of it where a filter reads one channel: its range is its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Interpreter, Node

from lit_compress.export.signature import Batch, as_tuple, first_rows
from lit_compress.quantization.calibrate import WeightRange
from lit_compress.quantization.observers import LARGEST
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
from lit_compress.quantization.rewrites.channel_ranges import Ranges, Seen

#: Share of the largest range below which a channel counts as this small.
LEAST = 1 / 64
#: Shares of a difference, as powers, that may be moved into weights that read many channels.
MOVES = (0.0, 0.25, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
#: Layers whose weight has the output channels along its second axis.
TRANSPOSED = {
    aten.conv_transpose1d.default,
    aten.conv_transpose2d.input,
    aten.matmul.default,
}


def equalize(
    graph: GraphModule, batches: Sequence[Batch], weight_range: WeightRange = "full"
) -> dict[str, Tensor]:
    """Bring the channels of a captured graph nearer to one range; what it computes stays the same.

    Args:
        graph: The graph; its weights are changed in place.
        batches: What the ranges are taken from.
        weight_range: How far its weights will reach.

    Returns:
        By name of a tensor that was scaled, what it was multiplied with.
    """
    flow = _Flow(graph, LARGEST[weight_range])
    ranges = Ranges(graph, flow.made)
    try:
        with torch.no_grad():
            flow.run(*first_rows([as_tuple(batches[0])], 2))
            for batch in batches:
                ranges.run(*as_tuple(batch))
    except (
        RuntimeError,
        ValueError,
        IndexError,
    ):  # the calibration runs them too, and says what is wrong
        return {}
    seen = ranges.seen(flow.count)
    if not bool(seen.magnitude.isfinite().all()):
        return {}
    with torch.no_grad():
        factors = flow.factors(flow.scales(seen))
    scale_tensors(graph, factors)
    return factors


def scale_tensors(graph: GraphModule, factors: Mapping[str, Tensor]) -> None:
    """Multiply weights of a graph.

    Args:
        graph: The graph; its weights are changed in place.
        factors: What :func:`equalize` returned for a graph of the same network.
    """
    with torch.no_grad():
        for name, factor in factors.items():
            attrgetter(name)(graph).mul_(factor)


class _Flow(Interpreter):
    """One run that follows each channel from the layer that makes it to those that read it.

    Args:
        graph: The captured graph.
        largest: What its largest weights will be.

    Attributes:
        count: How many channels were made.
        made: By node that makes channels, the number of its first.
    """

    def __init__(self, graph: GraphModule, largest: int) -> None:
        super().__init__(graph)
        self.extra_traceback = False
        self._largest = largest
        self.count = 0
        self.made: dict[Node, int] = {}
        self._channels: dict[Node, Any] = {}
        self._frozen: list[Tensor] = []
        self._reads: list[tuple[Tensor, int, Tensor, bool]] = []
        self._writes: list[tuple[Tensor, int]] = []
        self._joins: list[Tensor] = []
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
            self._joins.append(self._channels[n].unique())
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

    def scales(self, seen: Seen) -> Tensor:
        """Return the factor of each channel's readers, and divisor of its maker.

        Channels of one range have one share of their differences moved: that with which their
        readers make the least noise.

        Args:
            seen: What the channels were like.
        """
        groups = self._groups()
        top = seen.magnitude.scatter_reduce(0, groups, seen.magnitude, "amax")[groups]
        many, single = torch.zeros(2, self.count, dtype=torch.bool)
        for _, _, channels, alone in self._reads:
            (single if alone else many)[channels] = True
        free = (many | single) & (top > 0)
        for channels in self._frozen:
            free[channels.long()] = False
        share = (seen.magnitude / top.clamp(min=torch.finfo(top.dtype).tiny)).clamp(LEAST, 1)
        tried = torch.stack(
            [
                torch.where(free, share**moved, 1.0)
                for moved in (torch.where(many, each, 1.0) for each in MOVES)
            ]
        )
        reads = [
            _Read.of(weight, channels) for weight, _, channels, alone in self._reads if not alone
        ]
        noise = torch.stack([self._noise(scales, seen, groups, reads) for scales in tried])
        return tried.gather(0, noise.argmin(0)[groups][None])[0]

    def _noise(self, scales: Tensor, seen: Seen, groups: Tensor, reads: Sequence[_Read]) -> Tensor:
        """Return, by group, the noise that its readers would give, relative to what they give.

        Args:
            scales: Of all channels.
            seen: What the channels were like.
            groups: Which channels have one range.
            reads: Readers of many channels: the others' filters have ranges of their own.
        """
        high = torch.zeros(self.count).scatter_reduce(0, groups, seen.high / scales, "amax")
        low = torch.zeros(self.count).scatter_reduce(0, groups, seen.low / scales, "amin")
        found = torch.zeros(self.count)
        for read in reads:
            group = groups[read.channels[0]]
            own, power = scales[read.channels], seen.power[read.channels]
            step = (high[group] - low[group]) / 255
            of_input = (read.squares * own.square()).sum() * step.square()
            steps = (read.peaks * own).amax(1) / self._largest
            of_weight = steps.square().sum() * read.kernel * (power / own.square()).sum()
            signal = (read.squares * power).sum().clamp(min=torch.finfo(torch.float32).tiny)
            found[group] += (of_input + of_weight) / signal
        return found

    def _groups(self) -> Tensor:
        """Return, for each channel, a number that it shares with all that have its range."""
        groups = torch.zeros(self.count, dtype=torch.long)
        for start, size in self._makers():
            groups[start : start + size] = start
        joins = [join.long() for join in self._joins]
        while any(bool((groups[join] != groups[join].min()).any()) for join in joins):
            for join in joins:
                for group in set(groups[join].tolist()):
                    groups[groups == group] = groups[join].min()
        return groups

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
        for weight, dim, channels, _ in self._reads:
            multiply(weight, scales[channels], dim)
        return {name: factor for name, factor in found.items() if bool((factor != 1).any())}

    def _makers(self) -> list[tuple[int, int]]:
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
            self._reads.append((weight, 0, numbers, True))
        else:
            self._reads.append((weight, 1, rows[:, 0].long(), False))

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
                self._frozen.append(channels.unique())

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


@dataclass(frozen=True)
class _Read:
    """A weight that reads many channels: what its noise depends on, by channel.

    Attributes:
        channels: Numbers of what it reads.
        squares: Sums of its squares.
        peaks: For each output, its largest magnitudes.
        kernel: How many weights of an output read one channel.
    """

    channels: Tensor
    squares: Tensor
    peaks: Tensor
    kernel: int

    @classmethod
    def of(cls, weight: Tensor, channels: Tensor) -> _Read:
        rows = weight.float().reshape(*weight.shape[:2], -1)
        return cls(channels, rows.square().sum((0, 2)), rows.abs().amax(2), rows.shape[2])


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
