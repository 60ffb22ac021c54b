"""Decide which nodes of a captured graph are quantised, and which values share one range."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from torch.fx import GraphModule, Node

from lit_compress.quantization.operations import (
    ACTIVATIONS,
    AVERAGES,
    CHOICES,
    CLIPPING,
    COMBINATIONS,
    CONCATENATIONS,
    MOVEMENTS,
    RECTIFIERS,
    SELECTIONS,
    WEIGHTED,
    has_weight,
    is_float,
    layer_names,
    origin,
)


class Placement:
    """Places quantise/dequantise pairs so that ONNX Runtime and OpenVINO fuse every one of them.

    Every quantised value has one range, wherever it is moved. The input and the output of a max
    pool share one range. So do those of a concatenation, except for the rectified inputs where
    others are signed: ONNX Runtime drops a ReLU only if zero is the lowest value of the range, and
    runs the convolution before it in float otherwise. Rectifiers are folded into the layer
    before them. The outputs of the network stay float.

    Args:
        model: The captured graph.
        names: Names of the network's inputs.

    Attributes:
        names: Names of all nodes, see :func:`layer_names`.
        inputs: For each node that is quantised, its inputs that are quantised.
        quantized: The nodes whose output is quantised.
        folded_into: For each folded rectifier, the node before it.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).eval()
        >>> graph = torch.export.export(net, (torch.zeros(1, 3),)).module(check_guards=False)
        >>> placement = Placement(graph, ["input"])
        >>> [placement.names[node] for node in placement.inputs]
        ['0', '1/relu', '2']
        >>> [placement.names[node] for node in placement.quantized]
        ['1/relu']
    """

    def __init__(self, model: GraphModule, names: Sequence[str]) -> None:
        output = next(node for node in model.graph.nodes if node.op == "output")
        self._results = {origin(node) for node in output.all_input_nodes}
        self.names = layer_names(model.graph.nodes, names)
        self.inputs: dict[Node, list[Node]] = {}
        self.quantized: set[Node] = set()
        self.folded_into: dict[Node, Node] = {}
        #: For each node that shares the range of another one, the other one.
        self._shares_range_of: dict[Node, Node] = {}
        for node in model.graph.nodes:
            if node.op == "call_function" and node not in self.inputs:
                self._place(node)

    def range_of(self, value: Node) -> Node:
        """Return the node that represents all values with the same range as ``value``.

        Parts of a float value, such as an input, are quantised where they are read, each with a
        range of its own: they may be of different units.
        """
        node = origin(value)
        if node not in self.quantized:
            node = origin(value, MOVEMENTS - SELECTIONS)
        while node in self._shares_range_of:
            node = self._shares_range_of[node]
        return node

    def _place(self, node: Node) -> None:
        target = node.target
        if target in WEIGHTED:
            if has_weight(node):
                self._add_with_rectifier(node, node.args[0])
        elif target in COMBINATIONS:
            terms = node.args[:2]
            if all(self._is_quantized(term) for term in terms):
                self._add_with_rectifier(node, *terms)
        elif target in CONCATENATIONS:
            parts = node.args[0]
            if isinstance(parts, (list, tuple)) and all(self._is_quantized(p) for p in parts):
                self._add(node, *parts)
                nodes = [part for part in parts if isinstance(part, Node)]
                signed = [part for part in nodes if not is_nonnegative(self.range_of(part))]
                self._share_range(node, signed or parts)
        elif not self._is_quantized(node.args[0] if node.args else None):
            return
        elif target in CHOICES:
            self._add(node, node.args[0])
            self._share_range(node, [node.args[0]])
        elif target in AVERAGES or target in ACTIVATIONS or is_rectifier(node):
            self._add(node, node.args[0])

    def _add_with_rectifier(self, node: Node, *inputs: Any) -> None:
        """Quantise a node; if its only user is a rectifier, quantise behind the rectifier."""
        self._add(node, *inputs)
        users = list(node.users)
        if len(users) == 1 and is_rectifier(users[0]):
            self._add(users[0])
            self.folded_into[users[0]] = node
            self.quantized.discard(node)

    def _add(self, node: Node, *inputs: Any) -> None:
        """Quantise these inputs of a node, and its output if it is not an output of the network."""
        self.inputs[node] = list(dict.fromkeys(inputs))
        if node not in self._results:
            self.quantized.add(node)

    def _share_range(self, node: Node, values: Iterable[Any]) -> None:
        """Give a node and these values one common range."""
        for value in values:
            own, other = self.range_of(node), self.range_of(value)
            if own is not other:
                self._shares_range_of[own] = other

    def _is_quantized(self, value: Any) -> bool:
        return isinstance(value, Node) and is_float(value) and origin(value) in self.quantized


def is_nonnegative(node: Node) -> bool:
    """Tell whether a node is a rectifier that clips at zero or above."""
    if not is_rectifier(node):
        return False
    if node.target not in CLIPPING:
        return True
    return len(node.args) > 1 and isinstance(node.args[1], (int, float)) and node.args[1] >= 0


def is_rectifier(node: Node) -> bool:
    """Tell whether a node is a rectifier; a clamp is one only with two constant limits."""
    if node.target not in RECTIFIERS:
        return False
    if "clamp" in str(node.target):
        return len(node.args) == 3 and all(isinstance(a, (int, float)) for a in node.args[1:])
    return True
