"""Equalisation: channels of one activation brought nearer to one range, without any other change.

An activation has one range, so a channel that is 64 times smaller than the largest is left two of
its eight bits. What makes a channel is divided by a number, and what reads it multiplied: between
them stand only operations that let a positive factor pass (Nagel et al. 2019, arXiv 1906.04721,
section 4.1). Most of the difference is moved into the weights (Xiao et al. 2023, arXiv 2211.10438,
whose alpha is the share), all of it where a filter reads a single channel and has its own range.
The numbers are powers of two, so that the network computes what it did, to the last bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Interpreter, Node

from lit_compress.quantization.calibrate import Batch, as_tuple
from lit_compress.quantization.operations import (
    AVERAGES,
    CHOICES,
    CONCATENATIONS,
    MOVEMENTS,
    WEIGHTED,
    aten,
)
from lit_compress.quantization.signature import first_rows

#: Share of the largest range below which a channel counts as this small.
LEAST = 1 / 64
#: Share of a difference, in powers of two, that is moved into weights that read many channels.
MOVED = 0.75
#: Let a positive factor pass.
HOMOGENEOUS = {
    aten.relu.default,
    aten.relu_.default,
    aten.leaky_relu.default,
    aten.leaky_relu_.default,
}
NORMS = {aten.batch_norm.default}
TRANSPOSED = {aten.conv_transpose1d.default, aten.conv_transpose2d.input}


def equalize(graph: GraphModule, batches: Sequence[Batch]) -> int:
    """Bring the channels of a captured graph nearer to one range; its outputs stay the same.

    Args:
        graph: The graph; its weights are changed in place.
        batches: What the ranges are taken from.

    Returns:
        The number of channels that were scaled.
    """
    flow = _Flow(graph)
    ranges = _Ranges(graph, flow)
    try:
        with torch.no_grad():
            flow.run(*first_rows([as_tuple(batches[0])], 2))
            for batch in batches:
                ranges.run(*as_tuple(batch))
    except (RuntimeError, ValueError):  # the calibration runs them too, and says what is wrong
        return 0
    largest = ranges.largest(flow.count)
    if not bool(largest.isfinite().all()):
        return 0
    scales = flow.scales(largest)
    flow.apply(scales)
    return int((scales != 1).sum())


class _Flow(Interpreter):
    """One run that follows each channel from the layer that makes it to those that read it.

    Args:
        graph: The captured graph.

    Attributes:
        count: How many channels were made.
        made: By node that makes channels, the number of its first.
    """

    def __init__(self, graph: GraphModule) -> None:
        super().__init__(graph)
        self.extra_traceback = False
        self.count = 0
        self.made: dict[Node, int] = {}
        self._channels: dict[Node, Any] = {}
        self._frozen: list[Tensor] = []
        self._reads: list[tuple[Tensor, int, Tensor, bool]] = []
        self._writes: list[tuple[Tensor, int]] = []
        self._joins: list[Tensor] = []
        self._uses: dict[int, int] = {}
        for node in graph.graph.nodes:
            for source in node.all_input_nodes:
                if isinstance(tensor := self._attribute(source), Tensor):
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

    def scales(self, ranges: Tensor) -> Tensor:
        """Return the factor of each channel's readers, and divisor of its maker.

        Args:
            ranges: Largest magnitude of each channel.
        """
        top = ranges.clone()
        for start, size in self._makers():
            top[start : start + size] = ranges[start : start + size].max()
        joins = [join.long() for join in self._joins]
        while any(bool((top[join] != top[join].max()).any()) for join in joins):
            for join in joins:
                top[join] = top[join].max()
        many, single = torch.zeros(2, self.count, dtype=torch.bool)
        for _, _, channels, alone in self._reads:
            (single if alone else many)[channels] = True
        free = (many | single) & (top > 0)
        for channels in self._frozen:
            free[channels.long()] = False
        share = (ranges / top.clamp(min=torch.finfo(top.dtype).tiny)).clamp(LEAST, 1)
        exact = torch.exp2(torch.round(torch.log2(share) * torch.where(many, MOVED, 1.0)))
        return torch.where(free, exact, 1.0)

    def apply(self, scales: Tensor) -> None:
        """Divide what makes each channel by its scale, and multiply what reads it."""
        with torch.no_grad():
            for tensor, start in self._writes:
                tensor.div_(_along(scales[start : start + len(tensor)].to(tensor.dtype), tensor, 0))
            for weight, dim, channels, _ in self._reads:
                weight.mul_(_along(scales[channels].to(weight.dtype), weight, dim))

    def _makers(self) -> list[tuple[int, int]]:
        return [(start, end - start) for start, end in pairwise([*self.made.values(), self.count])]

    def _make(self, node: Node, value: Tensor) -> None:
        """Number the channels that a layer or norm makes."""
        dim = _dim(node, value)
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
        rows = channels.movedim(_dim(node, channels), 0).flatten(1)
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


class _Ranges(Interpreter):
    """Runs that keep the largest magnitude of each channel, after its rectifier if it has one."""

    def __init__(self, graph: GraphModule, flow: _Flow) -> None:
        super().__init__(graph)
        self.extra_traceback = False
        self._flow = flow
        self._found: dict[Node, Tensor] = {}

    def run_node(self, n: Node) -> Any:
        """Run one node and look at what it gives."""
        value = super().run_node(n)
        maker: Any = n.args[0] if n.target in HOMOGENEOUS else n
        if maker in self._flow.made and (maker is n) == (not _is_rectified(maker)):
            largest = value.abs().movedim(_dim(maker, value), 0).flatten(1).amax(1)
            seen = self._found.get(maker)
            self._found[maker] = largest if seen is None else torch.maximum(seen, largest)
        return value

    def largest(self, count: int) -> Tensor:
        """Return the largest magnitude of each channel."""
        found = torch.zeros(count)
        for maker, largest in self._found.items():
            start = self._flow.made[maker]
            found[start : start + len(largest)] = largest
        return found


def _is_rectified(maker: Node) -> bool:
    users = list(maker.users)
    return len(users) == 1 and users[0].target in HOMOGENEOUS


def _is_spatial(pool: Node, image: Tensor) -> bool:
    """Tell whether a pool or mean leaves batch and channels alone."""
    if pool.target is not aten.mean.dim:
        return image.dim() > 2
    dims: Any = pool.args[1]
    return bool(dims) and all(dim % image.dim() > 1 for dim in dims)


def _axis(cat: Node) -> int:
    dim = cat.args[1] if len(cat.args) > 1 else cat.kwargs.get("dim", 0)
    return dim if isinstance(dim, int) else 0


def _dim(maker: Node, value: Tensor) -> int:
    """Return the dimension along which the channels of a layer's input or output lie."""
    return value.dim() - 1 if maker.target is aten.linear.default else 1


def _along(values: Tensor, like: Tensor, dim: int) -> Tensor:
    """Return values shaped to stand along one dimension of another tensor."""
    shape = [1] * like.dim()
    shape[dim] = -1
    return values.view(shape)
