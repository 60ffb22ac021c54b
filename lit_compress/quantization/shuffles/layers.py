"""Convolutions whose channels may stand in any order, and operations that keep the order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node

from lit_compress.quantization.operations import (
    ACTIVATIONS,
    CHOICES,
    COMBINATIONS,
    IMAGE_DIMS,
    RECTIFIERS,
    aten,
)
from lit_compress.quantization.shuffles.layouts import DEQUANTIZE, QUANTIZE, channels, is_image

#: Position of the number of groups among the arguments of a convolution.
GROUPS = 6
CONVOLUTIONS = set(IMAGE_DIMS) - {aten.conv_transpose1d.default, aten.conv_transpose2d.input}
POOLS = {
    aten.adaptive_avg_pool1d.default,
    aten.adaptive_avg_pool2d.default,
    aten.avg_pool1d.default,
    aten.avg_pool2d.default,
}
#: Operations that compute each channel of their result from the same channel of their inputs.
KEEPERS = {
    *ACTIVATIONS,
    *CHOICES,
    *COMBINATIONS,
    *POOLS,
    *RECTIFIERS,
    DEQUANTIZE,
    QUANTIZE,
    aten.dropout.default,
}


class Layers:
    """The convolutions of a graph, and the tensors that they read.

    Args:
        graph: A captured graph.
    """

    def __init__(self, graph: GraphModule) -> None:
        self._graph = graph
        reads = [node for node in graph.graph.nodes if node.op == "get_attr"]
        self._reads = Counter(node.target for node in reads for _ in node.users)

    def mixes(self, node: Node) -> bool:
        """Tell whether a node is a convolution over all channels, with tensors of its own."""
        return _is_convolution(node) and _groups(node) == 1 and self._owns(node)

    def keeps(self, node: Node) -> bool:
        """Tell whether each channel of a result comes from the same channel of the inputs."""
        if _is_convolution(node):
            groups = _groups(node)
            depthwise = groups == channels(node) == channels(node.args[0])
            return depthwise and self._owns(node)
        values = (node, *node.all_input_nodes)
        known = node.target in KEEPERS and all(map(is_image, values))
        return known and len(set(map(channels, values))) == 1

    def reorder(self, node: Node, order: Sequence[int], axis: int) -> None:
        """Let a convolution take or return its channels in another order.

        Args:
            node: The convolution, whose tensors get new values.
            order: The new order: number of the channel that stands at each place.
            axis: 0 for the channels that it returns, 1 for those that it takes.
        """
        index = torch.tensor(order)
        for argument in node.args[1 : 2 if axis else 3]:
            for tensor in _tensors(argument):
                value: Tensor = attrgetter(str(tensor.target))(self._graph)
                if value.dim() > axis:
                    self._set(str(tensor.target), value.index_select(axis, index))

    def _owns(self, node: Node) -> bool:
        """Tell whether no other operation reads the weight and the bias of a convolution."""
        found = [list(_tensors(part)) for part in node.args[1:3] if isinstance(part, Node)]
        once = all(self._reads[tensor.target] == 1 for part in found for tensor in part)
        return not node.kwargs and all(found) and once

    def _set(self, name: str, value: Tensor) -> None:
        """Store a tensor under the name of another one, which may belong to other graphs."""
        path, _, name = name.rpartition(".")
        owner = self._graph.get_submodule(path)
        if name in owner._parameters:
            setattr(owner, name, nn.Parameter(value.detach(), requires_grad=False))
        else:
            setattr(owner, name, value.detach())


def data_of(node: Node) -> list[Node]:
    """Return the inputs of a node that are not its weights.

    Args:
        node: The node.
    """
    if node.target in CONVOLUTIONS:
        source = node.args[0]
        return [source] if isinstance(source, Node) else []
    return list(node.all_input_nodes)


def _is_convolution(node: Node) -> bool:
    """Tell whether a node is a convolution of a value with a known number of channels."""
    return node.target in CONVOLUTIONS and is_image(node) and is_image(node.args[0])


def _groups(node: Node) -> int:
    groups = node.args[GROUPS] if len(node.args) > GROUPS else 1
    return groups if isinstance(groups, int) else 0


def _tensors(argument: Any) -> Iterator[Node]:
    """Yield the stored tensors that a weight or a bias is made of; nothing if it is computed."""
    if not isinstance(argument, Node):
        return
    if argument.op == "get_attr":
        yield argument
    elif "dequantize_per" in str(argument.target) and len(argument.users) == 1:
        axis = argument.args[3] if "per_channel" in str(argument.target) else 0
        sources = argument.all_input_nodes
        if axis == 0 and all(source.op == "get_attr" for source in sources):
            yield from sources
