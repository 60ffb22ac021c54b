"""Sizes, each saying of what: bytes of a file, bytes deflated, bytes of a module's tensors."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
from torch import nn

CHUNK = 1 << 20


def file_bytes(path: str | Path) -> int:
    """Return the size of a file on disk, in bytes."""
    return Path(path).stat().st_size


def deflated_bytes(path: str | Path) -> int:
    """Return what a file would take deflated (zlib, level 6), in bytes."""
    packer, total = zlib.compressobj(6), 0
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK):
            total += len(packer.compress(chunk))
    return total + len(packer.flush())


def state_bytes(module: nn.Module) -> int:
    """Return the bytes that a module's parameters and buffers hold in memory, each tensor once."""
    tensors = [*module.parameters(), *module.buffers()]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def onnx_counts(path: str | Path) -> tuple[int, int]:
    """Return the number of weights stored in an ONNX file, and of those that are not zero.

    Weights are its numeric initializers of at least one dimension; scales and zero points of
    quantisation, and integer constants such as shapes, are not weights.
    """
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(str(path)).graph
    scaling = {
        name
        for node in graph.node
        if node.op_type in ("QuantizeLinear", "DequantizeLinear")
        for name in node.input[1:]
    }
    total = nonzero = 0
    for initializer in graph.initializer:
        values = numpy_helper.to_array(initializer)
        if initializer.name in scaling or values.ndim == 0 or values.dtype == np.int64:
            continue
        total += values.size
        nonzero += int(np.count_nonzero(values))
    return total, nonzero
