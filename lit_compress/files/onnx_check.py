"""Refuse an ONNX file that is not what this package writes, before a runtime sees it."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from lit_compress.files.onnx_wire import numbers, parts, text

#: Domains of operators that ONNX Runtime has: the standard, and its own.
DOMAINS = ("", "ai.onnx", "com.microsoft")
#: Operators that hold further graphs.
CONTROL_FLOW = ("If", "Loop", "Scan", "SequenceMap")
#: Most elements that a tensor may have: a GiB of float32.
MOST = 1 << 28
#: By operator, the inputs that set how large its output is. A runtime may compute it at once.
SIZES = {
    "ConstantOfShape": (0,),
    "Expand": (1,),
    "Tile": (1,),
    "Range": (0, 1),
    "Pad": (1,),
    "Resize": (2, 3),
    "Upsample": (1,),
    "OneHot": (1,),
    "CenterCropPad": (1,),
    "BlackmanWindow": (0,),
    "HannWindow": (0,),
    "HammingWindow": (0,),
}
#: Operators whose output has the shape of an attribute.
SHAPED = ("RandomNormal", "RandomUniform")
#: Operators through which a size is traced back to constants.
THROUGH = frozenset(
    {"Concat", "Mul", "Add", "Sub", "Div", "Gather", "Unsqueeze", "Squeeze", "Reshape", "Cast"}
    | {"Where", "Max", "Min", "Identity", "Slice", "Pow"}
)

# Fields of onnx.proto.
_GRAPH, _FUNCTIONS = 7, 25
_NODE, _INITIALIZER, _SPARSE, _INPUT = 1, 5, 15, 11
_INPUTS, _OUTPUTS, _OPERATOR, _ATTRIBUTE, _DOMAIN = 1, 2, 4, 5, 7
_NAME, _TENSOR, _SUBGRAPH, _SUBGRAPHS, _INTS = 1, 5, 6, 11, 8
_DIMS, _TYPE, _INT32, _INT64, _TENSOR_NAME, _RAW, _EXTERNAL, _LOCATION = 1, 2, 5, 7, 8, 9, 13, 14
#: numpy types of the tensors that sizes are in, by their number in onnx.proto.
_KINDS = {1: "<f4", 3: "i1", 5: "<i2", 6: "<i4", 7: "<i8", 11: "<f8", 2: "u1"}


def check_onnx(content: bytes) -> None:
    """Check an ONNX file.

    Args:
        content: Content of the file.

    Raises:
        ValueError: If it is no ONNX file, has control flow, functions of its own, operators of
            another domain or data in other files, or makes a tensor of more than 2^28 elements.
    """
    graphs = list(parts(memoryview(content), _GRAPH))
    if len(graphs) != 1:
        raise ValueError(f"it is not an ONNX file: it has {len(graphs)} graphs")
    if any(True for _ in parts(memoryview(content), _FUNCTIONS)):
        raise ValueError("it has functions of its own, which this package does not write")
    _Graph(graphs[0]).check()


class _Graph:
    """The nodes and the constants of a graph."""

    def __init__(self, graph: memoryview) -> None:
        self._nodes = list(parts(graph, _NODE))
        self._constants = {text(t, _TENSOR_NAME): t for t in parts(graph, _INITIALIZER)}
        self._sparse = list(parts(graph, _SPARSE))
        self._makers: dict[str, memoryview] = {}
        for node in self._nodes:
            for output in parts(node, _OUTPUTS):
                self._makers[str(output, "utf-8", "replace")] = node

    def check(self) -> None:
        """Check all of it."""
        if self._sparse:
            raise ValueError("it has sparse tensors, which this package does not write")
        for tensor in self._constants.values():
            _check_tensor(tensor)
        for node in self._nodes:
            self._check_node(node)

    def _check_node(self, node: memoryview) -> None:
        operator, domain = text(node, _OPERATOR), text(node, _DOMAIN)
        if domain not in DOMAINS:
            raise ValueError(f"it has the operator {operator[:40]!r} of {domain[:40]!r}")
        subgraphs = False
        for attribute in parts(node, _ATTRIBUTE):
            subgraphs |= any(True for n in (_SUBGRAPH, _SUBGRAPHS) for _ in parts(attribute, n))
            for tensor in parts(attribute, _TENSOR):
                _check_tensor(tensor)
            if operator in SHAPED and text(attribute, _NAME) == "shape":
                _check_size(operator, numbers(attribute, _INTS))
        if subgraphs or operator in CONTROL_FLOW:
            raise ValueError(f"it has control flow ({operator[:40]}), which is not run")
        names = [str(name, "utf-8", "replace") for name in parts(node, _INPUTS)]
        for place in SIZES.get(operator, ()):
            if place < len(names):
                for values in self._sources(names[place]):
                    _check_size(operator, values)

    def _sources(self, name: str) -> Iterator[list[int]]:
        """Yield the constants that a size is computed from."""
        waiting, seen = [name], set[str]()
        while waiting:
            current = waiting.pop()
            if current in seen:
                continue
            seen.add(current)
            if current in self._constants:
                yield _values(self._constants[current])
                continue
            node = self._makers.get(current)
            if node is None:
                continue
            operator = text(node, _OPERATOR)
            if operator == "Constant":
                yield from _constant_values(node)
            elif operator in THROUGH:
                waiting += [str(part, "utf-8", "replace") for part in parts(node, _INPUTS)]


def _constant_values(node: memoryview) -> Iterator[list[int]]:
    for attribute in parts(node, _ATTRIBUTE):
        yield numbers(attribute, _INTS) + numbers(attribute, 3)
        for tensor in parts(attribute, _TENSOR):
            yield _values(tensor)


def _check_tensor(tensor: memoryview) -> None:
    name = text(tensor, _TENSOR_NAME)[:40]
    if any(numbers(tensor, _LOCATION)) or any(True for _ in parts(tensor, _EXTERNAL)):
        raise ValueError(f"the data of {name!r} are in another file, which is not read")
    sizes = numbers(tensor, _DIMS)
    if any(size < 0 for size in sizes) or math.prod(sizes) > 8 * MOST:
        raise ValueError(f"{name!r} has the shape {sizes[:8]}")


def _check_size(operator: str, values: list[int]) -> None:
    sizes = [abs(value) for value in values if value]
    if len(sizes) <= 64 and math.prod(sizes) > MOST:
        raise ValueError(f"{operator} makes a tensor of {math.prod(sizes):,} elements")


def _values(tensor: memoryview) -> list[int]:
    """Return the numbers of a small tensor as whole ones; none for a large one."""
    if math.prod(numbers(tensor, _DIMS)) > 64:
        return []
    raw = b"".join(map(bytes, parts(tensor, _RAW)))
    kind = (numbers(tensor, _TYPE) or [0])[0]
    if raw and kind in _KINDS and not len(raw) % np.dtype(_KINDS[kind]).itemsize:
        array = np.frombuffer(raw, _KINDS[kind]).astype(np.float64)
        return [int(value) for value in array[np.isfinite(array)]]
    return numbers(tensor, _INT64) + numbers(tensor, _INT32)
