"""Values whose channels stand in one order, because the operations between them keep it."""

from __future__ import annotations

from collections.abc import Collection

from torch.fx import GraphModule, Node

from lit_compress.quantization.shuffles.layers import Layers, data_of
from lit_compress.quantization.shuffles.layouts import Layouts, is_image


class Unions:
    """Sets of nodes that grow together; each is known by one of its nodes.

    Example:
        >>> import torch
        >>> graph = torch.fx.symbolic_trace(torch.nn.ReLU()).graph
        >>> first, second, _ = graph.nodes
        >>> unions = Unions()
        >>> unions.join(first, second)
        >>> unions.find(first) is unions.find(second)
        True
    """

    def __init__(self) -> None:
        self._parents: dict[Node, Node] = {}

    def find(self, node: Node) -> Node:
        """Return the node that the set of a node is known by."""
        path = [node]
        while (parent := self._parents.get(path[-1], path[-1])) is not path[-1]:
            path.append(parent)
        self._parents.update(dict.fromkeys(path, path[-1]))
        return path[-1]

    def join(self, first: Node, second: Node) -> None:
        """Make one set of the sets of two nodes."""
        self._parents[self.find(first)] = self.find(second)


class Groups:
    """The values of a graph in groups with one order of channels each.

    Args:
        graph: A captured graph.
        layouts: The values that are moved channels, which are in no group.
        layers: The convolutions of the graph.

    Attributes:
        readers: By moved value, the nodes that read it and are not moved themselves.
        fixed: The groups that an operation reads or computes whose channels have a fixed order.
    """

    def __init__(self, graph: GraphModule, layouts: Layouts, layers: Layers) -> None:
        self.readers: dict[Node, list[Node]] = {}
        self._layouts = layouts
        self._layers = layers
        self._unions = Unions()
        fixed: list[Node] = []
        for node in graph.graph.nodes:
            if not layouts.is_moved(node):
                fixed += self._add(node)
        self.fixed = frozenset(self.find(node) for node in fixed)

    def find(self, value: Node) -> Node:
        """Return the value that the group of a value is known by."""
        return self._unions.find(value)

    def keeps(self, reader: Node) -> bool:
        """Tell whether the result of a node has the order of its inputs."""
        return not self._layers.mixes(reader) and self._layers.keeps(reader)

    def takes_any_order(self, reader: Node, fixed: Collection[Node]) -> bool:
        """Tell whether a node may read its channels in any order.

        Args:
            reader: The node.
            fixed: The groups whose order cannot change.
        """
        return self._layers.mixes(reader) or (
            self._layers.keeps(reader) and self.find(reader) not in fixed
        )

    def _add(self, node: Node) -> list[Node]:
        """Put a node in its group, and return the values that get a fixed order by it."""
        mixes, keeps = self._layers.mixes(node), self.keeps(node)
        fixed = [] if mixes or keeps else [node]
        for source in data_of(node):
            if self._layouts.is_moved(source):
                self.readers.setdefault(source, []).append(node)
            elif keeps:
                self._unions.join(source, node)
            elif not mixes and is_image(source):
                fixed.append(source)
        return fixed
