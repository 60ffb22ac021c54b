"""Dequantise each tensor once.

torchao gives each reader of an int8 value a dequantise operation of its own. Where each layer reads
the outputs of all layers before it, as in a DenseNet, most of the graph are such operations, and
their number grows with the square of the layers. The exporter makes one of equal operations at its
end, so the file is the same; until then, each takes its time.
"""

from __future__ import annotations

import copy
from typing import Any

from torch import nn
from torch._ops import OpOverload
from torch.fx import GraphModule, Node


def share_dequantized(network: nn.Module) -> nn.Module:
    """Return a network whose graphs dequantise each tensor once.

    Args:
        network: A network, such as a quantised graph with what goes before it; it does not change.

    Returns:
        The network itself if there is nothing to share. Otherwise a copy with the same tensors.

    Example:
        >>> share_dequantized(nn.Sequential(nn.ReLU()))
        Sequential(
          (0): ReLU()
        )
    """
    if isinstance(network, GraphModule):
        return _shared(network)
    parts = {
        name: None if part is None else share_dequantized(part)
        for name, part in network._modules.items()
    }
    if all(part is network._modules[name] for name, part in parts.items()):
        return network
    copied = copy.copy(network)
    copied._modules = parts
    return copied


def _shared(network: GraphModule) -> GraphModule:
    if not _repeated(list(network.graph.nodes)):
        return network
    graph = copy.deepcopy(network.graph)
    for node, first in _repeated(list(graph.nodes)).items():
        node.replace_all_uses_with(first)
        graph.erase_node(node)
    return GraphModule(network, graph)


def _repeated(nodes: list[Node]) -> dict[Node, Node]:
    """Return the nodes that dequantise what another one does, with the first of these."""
    first: dict[Any, Node] = {}
    repeated = {}
    for node in nodes:
        if _dequantizes(node):
            key = node.target, node.args, tuple(node.kwargs.items())
            if first.setdefault(key, node) is not node:
                repeated[node] = first[key]
    return repeated


def _dequantizes(node: Node) -> bool:
    target = node.target
    return isinstance(target, OpOverload) and target._schema.name.startswith(
        "quantized_decomposed::dequantize"
    )
