"""The nodes and the stored tensors of an ONNX file, read without the onnx package.

The numbers of the fields are those of onnx.proto: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lit_compress.files.onnx_wire import encoded, numbers, parts, text

# Fields of onnx.proto.
GRAPH, NODE, INITIALIZER, OUTPUT = 7, 1, 5, 12
_INPUTS, _OUTPUTS, _OPERATOR, _ATTRIBUTE, _DOMAIN = 1, 2, 4, 5, 7
_NAME, _TENSOR, _DIMS, _TYPE, _TENSOR_NAME = 1, 5, 1, 2, 8
#: Operators that move the elements of a tensor, and change none.
MOVES = frozenset({"Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity"})
#: Whole numbers of 8 bits and less, by ONNX's number: uint8, int8, uint4, int4.
SMALL = frozenset({2, 3, 21, 22})


@dataclass(frozen=True)
class Node:
    """One operation of a graph.

    Attributes:
        operator: Name of the operator.
        domain: Its domain; empty for ONNX's own operators.
        inputs: Names of its inputs, in order.
        outputs: Names of its outputs, in order.
    """

    operator: str
    domain: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class Stored:
    """A tensor that is stored in a file.

    Attributes:
        shape: Its shape.
        kind: ONNX's number of its type.
    """

    shape: tuple[int, ...]
    kind: int


@dataclass(frozen=True)
class Graph:
    """The operations of an ONNX file.

    Attributes:
        nodes: The operations, in order.
        stored: The stored tensors by name.
        makers: By name of a tensor, the operation that makes it.
    """

    nodes: tuple[Node, ...]
    stored: Mapping[str, Stored]
    makers: Mapping[str, Node]

    def weight(self, name: str) -> Stored | None:
        """Return the stored tensor behind a name: itself, or before it was dequantised or moved.

        Args:
            name: Name of a tensor.
        """
        source = self._source(name)
        maker = self.makers.get(source)
        if maker is not None and maker.operator == "DequantizeLinear":
            source = self._source(maker.inputs[0])
        return self.stored.get(source)

    def is_quantised(self, name: str) -> bool:
        """Tell whether a float tensor stands for whole numbers of 8 bits or less.

        Args:
            name: Name of a tensor.
        """
        maker = self.makers.get(self._source(name))
        if maker is None or maker.operator != "DequantizeLinear":
            return False
        weight = self.weight(name)
        return weight is None or weight.kind in SMALL

    def rows_read_by(self, name: str) -> int | None:
        """Return how many rows a table has that is read at the places in an input.

        Args:
            name: Name of the input, such as that of token numbers.
        """
        names = {name}
        for node in self.nodes:
            if node.operator in MOVES | {"Cast"} and node.inputs and node.inputs[0] in names:
                names |= {*node.outputs}
        tables = [
            self.weight(node.inputs[0])
            for node in self.nodes
            if node.operator == "Gather" and len(node.inputs) > 1 and node.inputs[1] in names
        ]
        rows = [table.shape[0] for table in tables if table is not None and table.shape]
        return min(rows) if rows else None

    def _source(self, name: str) -> str:
        """Return the name of a tensor before its elements were moved."""
        maker = self.makers.get(name)
        while maker is not None and maker.operator in MOVES and maker.inputs:
            name = maker.inputs[0]
            maker = self.makers.get(name)
        return name


def read_graph(content: bytes) -> Graph:
    """Return the operations of an ONNX file.

    Args:
        content: Content of the file, as :func:`~lit_compress.files.onnx_check.check_onnx` accepts
            it.

    Raises:
        ValueError: If the bytes are no ONNX file.
    """
    nodes: list[Node] = []
    stored: dict[str, Stored] = {}
    for graph in parts(memoryview(content), GRAPH):
        for tensor in parts(graph, INITIALIZER):
            stored[text(tensor, _TENSOR_NAME)] = _stored(tensor)
        for node in parts(graph, NODE):
            found = _node(node)
            nodes.append(found)
            if found.operator == "Constant" and found.outputs:
                for attribute in parts(node, _ATTRIBUTE):
                    for tensor in parts(attribute, _TENSOR):
                        stored[found.outputs[0]] = _stored(tensor)
    makers = {output: node for node in nodes for output in node.outputs}
    return Graph(tuple(nodes), stored, makers)


def with_outputs(content: bytes, names: Sequence[str]) -> bytes:
    """Return an ONNX file that gives further tensors as outputs.

    A message in two parts is one message: the lists of the second are appended to those of the
    first. So the outputs are a second part of the graph, at the end of the file.

    Args:
        content: Content of the file.
        names: Names of tensors in it that are no outputs yet.
    """
    return content + encoded(GRAPH, b"".join(encoded(OUTPUT, encoded(_NAME, n)) for n in names))


def output_names(content: bytes) -> tuple[str, ...]:
    """Return the names of the outputs of an ONNX file.

    Args:
        content: Content of the file.
    """
    return tuple(
        text(output, _NAME)
        for graph in parts(memoryview(content), GRAPH)
        for output in parts(graph, OUTPUT)
    )


def _node(node: memoryview) -> Node:
    inputs, outputs = (
        tuple(str(name, "utf-8", "replace") for name in parts(node, field))
        for field in (_INPUTS, _OUTPUTS)
    )
    return Node(text(node, _OPERATOR), text(node, _DOMAIN), inputs, outputs)


def _stored(tensor: memoryview) -> Stored:
    return Stored(tuple(numbers(tensor, _DIMS)), (numbers(tensor, _TYPE) or [0])[0])
