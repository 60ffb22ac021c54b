"""Measure sizes in bytes: of a file, of a file when compressed, of a module's tensors."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
from torch import nn

#: Number of bytes that are read at a time.
CHUNK = 1 << 20


def file_bytes(path: str | Path) -> int:
    """Return the size of a file on disk in bytes.

    Example:
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     file = Path(folder, "zeros")
        ...     count = file.write_bytes(bytes(1000))
        ...     file_bytes(file), deflated_bytes(file) < 20
        (1000, True)
    """
    return Path(path).stat().st_size


def deflated_bytes(path: str | Path) -> int:
    """Return the size of a file in bytes after compression with zlib at level 6.

    The file is not changed. See :func:`file_bytes` for an example.
    """
    packer, total = zlib.compressobj(6), 0
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK):
            total += len(packer.compress(chunk))
    return total + len(packer.flush())


def state_bytes(module: nn.Module) -> int:
    """Return the bytes of a module's parameters and buffers in memory; shared tensors count once.

    Example:
        >>> from torch import nn
        >>> state_bytes(nn.Linear(3, 2))  # 8 numbers of 4 bytes
        32
    """
    tensors = [*module.parameters(), *module.buffers()]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def onnx_counts(path: str | Path) -> tuple[int, int]:
    """Return the number of weights stored in an ONNX file, and the number that are not zero.

    Weights are numeric initializers with at least one dimension. Scales and zero points of
    quantisation and int64 constants, such as shapes, are not weights.

    Args:
        path: The ONNX file.

    Returns:
        The number of weights, and the number of non-zero weights.

    Example:
        >>> import onnx.parser
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> model = onnx.parser.parse_model('''
        ...     <ir_version: 10, opset_import: ["": 20]>
        ...     net (float[batch, 3] x) => (float[batch, 3] y)
        ...     <float[3] w = {1, 0, 2}> { y = Mul(x, w) }
        ... ''')
        >>> with TemporaryDirectory() as folder:
        ...     onnx.save(model, Path(folder, "model.onnx"))
        ...     onnx_counts(Path(folder, "model.onnx"))
        (3, 2)
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
