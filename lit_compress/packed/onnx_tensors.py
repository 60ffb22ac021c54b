"""Where the bytes of the tensors lie in an ONNX file, found without the onnx package.

The numbers of the fields are those of https://github.com/onnx/onnx/blob/main/onnx/onnx.proto.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

import numpy as np

from lit_compress.errors import ArtifactError
from lit_compress.files.onnx_wire import BYTES, spans, varint, varints
from lit_compress.packed.tensor import Tensor

#: Fields that lead to tensors, by message and number.
LEADS = {
    "model": {7: "graph", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
}
#: Fields of a tensor. Of the fields with values, these hold them as little-endian bytes.
DIMS, TYPE, NAME, LOCATION = 1, 2, 8, 14
VALUES = {4: "float32", 9: None, 10: "float64"}
#: numpy types by ONNX's number, from 1; bfloat16 is read as uint16, and float8 as uint8.
TYPES = (
    *("float32", "uint8", "int8", "uint16", "int16", "int32", "int64", "-", "bool", "float16"),
    *("float64", "uint32", "uint64", "complex64", "complex128", "uint16"),
    *("uint8", "uint8", "uint8", "uint8"),
)
#: Smaller tensors stay in the graph: an entry in the index takes more bytes than they do.
SMALLEST = 48
#: Subgraphs are nested no deeper than this.
DEEPEST = 100


def find_tensors(data: bytes, source: str) -> list[Tensor]:
    """Return the tensors of an ONNX file that have at least 48 bytes, in the order of the file.

    Args:
        data: Content of the file.
        source: Name of the file, for error messages.

    Raises:
        ArtifactError: If it is not an ONNX file, or keeps tensors in other files.

    Example:
        >>> import numpy as np
        >>> from onnx import numpy_helper, helper
        >>> weight = numpy_helper.from_array(np.ones((4, 5), np.float32), "weight")
        >>> graph = helper.make_graph([], "net", [], [], [weight])
        >>> data = helper.make_model(graph).SerializeToString()
        >>> [(t.name, t.dtype, t.shape) for t in find_tensors(data, "example")]
        [('weight', 'float32', (4, 5))]
    """
    try:
        found = list(_tensors(memoryview(data), 0, len(data), "model", source, 0))
    except (IndexError, ValueError) as error:
        raise ArtifactError(f"{source} is not an ONNX file ({error}): export it again") from error
    return [tensor for tensor in found if tensor.size >= SMALLEST]


def _tensors(
    data: memoryview, start: int, end: int, message: str, source: str, depth: int
) -> Iterator[Tensor]:
    if depth > DEEPEST:
        raise ValueError("it is nested too deeply")
    if message == "tensor":
        yield from _tensor(data, start, end, source)
        return
    for field, wire, first, last in spans(data, start, end):
        if wire == BYTES and field in LEADS[message]:
            yield from _tensors(data, first, last, LEADS[message][field], source, depth + 1)


def _tensor(data: memoryview, start: int, end: int, source: str) -> Iterator[Tensor]:
    shape: list[int] = []
    kind, name, places = 0, "", []
    for field, wire, first, last in spans(data, start, end):
        if field == DIMS:
            shape += varints(data, first, last)
        elif field == TYPE:
            kind = varint(data, first, last)[0]
        elif field == NAME:
            name = str(data[first:last], "utf-8")
        elif field == LOCATION and varint(data, first, last)[0] == 1:
            raise ArtifactError(
                f"{source} keeps the tensor {name!r} in another file: save it as one file first"
            )
        elif field in VALUES and wire == BYTES:
            places.append((first, last, VALUES[field] or _dtype(kind)))
    # A type behind its values, or values in parts: legal, and never seen. They stay in the graph.
    if len(places) == 1 and kind:
        first, last, dtype = places[0]
        if dtype == "-" or prod(shape) * np.dtype(dtype).itemsize != last - first:
            dtype, shape = "uint8", [last - first]
        yield Tensor(name, dtype, tuple(shape), first)


def _dtype(kind: int) -> str:
    return TYPES[kind - 1] if 0 < kind <= len(TYPES) else "-"
