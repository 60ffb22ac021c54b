"""ONNX files in which no two nodes read one dequantised weight, or one stored tensor of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from lit_compress.files.onnx_graph import GRAPH, INITIALIZER, NODE
from lit_compress.files.onnx_wire import encoded, parts, spans, text

# Fields of onnx.proto.
_INPUT, _OUTPUT, _NODE_NAME, _OPERATOR, _TENSOR_NAME = 1, 2, 3, 4, 8


def unshared(content: bytes) -> bytes:
    """Return an ONNX file in which each node that reads a dequantised weight has one of its own.

    Equal zero points are stored once, and a weight of two layers is dequantised once. ONNX Runtime
    cannot turn weights from int8 into uint8 that share a zero point or their node.

    Args:
        content: Content of the file.

    Raises:
        ValueError: If the bytes are no ONNX file.
    """
    model = memoryview(content)
    return b"".join(
        encoded(GRAPH, _Graph(value).unshared()) if number == GRAPH else raw
        for number, value, raw in _fields(model)
    )


@dataclass
class _Graph:
    """A graph that is written anew.

    Attributes:
        content: Its bytes.
        taken: Names of the tensors that a node has for itself.
        written: The fields of the new graph, in order.
    """

    content: memoryview
    taken: set[str] = field(default_factory=set)
    written: list[bytes] = field(default_factory=list)

    def unshared(self) -> bytes:
        """Return the new graph as bytes."""
        stored = {text(tensor, _TENSOR_NAME): tensor for tensor in parts(self.content, INITIALIZER)}
        weights: dict[str, memoryview] = {}
        for number, value, raw in _fields(self.content):
            if number != NODE:
                self.written.append(raw)
                continue
            inputs = own = [str(name, "utf-8") for name in parts(value, _INPUT)]
            if text(value, _OPERATOR) == "DequantizeLinear":
                own = self._own(inputs, stored)
                if inputs[0] in stored:
                    weights[text(value, _OUTPUT)] = value
            own = [self._own_weight(name, weights, stored) for name in own]
            same = own == inputs
            self.written.append(raw if same else encoded(NODE, _replaced(value, {_INPUT: own})))
        return b"".join(self.written)

    def _own(self, names: list[str], stored: dict[str, memoryview]) -> list[str]:
        """Return names of stored tensors for one node; write those that others have taken anew."""
        own = [_free(name, self.taken) if name in stored else name for name in names]
        for name, new in zip(names, own, strict=True):
            if name != new:
                tensor = _replaced(stored[name], {_TENSOR_NAME: [new]})
                self.written.append(encoded(INITIALIZER, tensor))
        return own

    def _own_weight(
        self, name: str, weights: dict[str, memoryview], stored: dict[str, memoryview]
    ) -> str:
        """Return the name of a dequantised weight for one node; write it anew if it is taken."""
        if name not in weights:
            return name
        own = _free(name, self.taken)
        if own != name:
            node = weights[name]
            inputs = [str(part, "utf-8") for part in parts(node, _INPUT)]
            fields = {_NODE_NAME: [own], _INPUT: self._own(inputs, stored), _OUTPUT: [own]}
            self.written.append(encoded(NODE, _replaced(node, fields)))
        return own


def _free(name: str, taken: set[str]) -> str:
    """Return the name of a tensor for one node; a new one if another node has taken it."""
    count = 0
    own = name
    while own in taken:
        count += 1
        own = f"{name}/{count}"
    taken.add(own)
    return own


def _replaced(message: memoryview, texts: dict[int, list[str]]) -> bytes:
    """Return a message with other texts in some of its fields."""
    new = [encoded(number, value) for number, values in texts.items() for value in values]
    return b"".join([*new, *(raw for number, _, raw in _fields(message) if number not in texts)])


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview, bytes]]:
    """Yield number, content and all bytes of each field of a message."""
    begin = 0
    for number, _, first, last in spans(message, 0, len(message)):
        yield number, message[first:last], bytes(message[begin:last])
        begin = last
