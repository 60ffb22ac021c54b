"""ONNX files in which nothing that is dequantised shares a stored tensor."""

from __future__ import annotations

from collections.abc import Iterator

from lit_compress.files.onnx_graph import GRAPH, INITIALIZER, NODE
from lit_compress.files.onnx_wire import encoded, parts, spans, text

# Fields of onnx.proto.
_INPUT, _OPERATOR, _TENSOR_NAME = 1, 4, 8


def unshared(content: bytes) -> bytes:
    """Return an ONNX file in which no two nodes that dequantise read one stored tensor.

    Equal zero points are stored once, and ONNX Runtime cannot turn two weights from int8 into uint8
    that have one zero point.

    Args:
        content: Content of the file.

    Raises:
        ValueError: If the bytes are no ONNX file.
    """
    model = memoryview(content)
    return b"".join(
        encoded(GRAPH, _graph(value)) if number == GRAPH else raw
        for number, value, raw in _fields(model)
    )


def _graph(graph: memoryview) -> bytes:
    tensors = {text(tensor, _TENSOR_NAME): tensor for tensor in parts(graph, INITIALIZER)}
    taken, written = set[str](), list[bytes]()
    for number, value, raw in _fields(graph):
        if number == NODE and text(value, _OPERATOR) == "DequantizeLinear":
            names = [str(name, "utf-8") for name in parts(value, _INPUT)]
            own = [_own(name, taken) if name in tensors else name for name in names]
            for name, new in zip(names, own, strict=True):
                if name != new:
                    written.append(encoded(INITIALIZER, _named(tensors[name], new)))
            raw = encoded(NODE, _with_inputs(value, own))
        written.append(raw)
    return b"".join(written)


def _own(name: str, taken: set[str]) -> str:
    """Return the name of a tensor for one node; a new one if another node has taken it."""
    count = 0
    own = name
    while own in taken:
        count += 1
        own = f"{name}/{count}"
    taken.add(own)
    return own


def _named(tensor: memoryview, name: str) -> bytes:
    kept = (raw for number, _, raw in _fields(tensor) if number != _TENSOR_NAME)
    return b"".join([*kept, encoded(_TENSOR_NAME, name)])


def _with_inputs(node: memoryview, names: list[str]) -> bytes:
    kept = (raw for number, _, raw in _fields(node) if number != _INPUT)
    return b"".join([*(encoded(_INPUT, name) for name in names), *kept])


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview, bytes]]:
    """Yield number, content and all bytes of each field of a message."""
    begin = 0
    for number, _, first, last in spans(message, 0, len(message)):
        yield number, message[first:last], bytes(message[begin:last])
        begin = last
