"""Measure which share of the weights in an ONNX file are int8."""

from __future__ import annotations

from math import prod
from pathlib import Path


def int8_share(path: str | Path) -> float | None:
    """Return the share of the weights in an ONNX file that are 8-bit integers, in [0, 1].

    Weights are the stored tensors of two and more dimensions; biases, scales, and int64 constants
    such as shapes are none.

    Args:
        path: The ONNX file.

    Returns:
        The share; None if the file stores no weight.

    Example:
        >>> import onnx.parser
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> model = onnx.parser.parse_model('''
        ...     <ir_version: 10, opset_import: ["": 20]>
        ...     net (float[batch, 1] x) => (float[batch, 3] y)
        ...     <float[1, 3] w = {1, 0, 2}> { y = Mul(x, w) }
        ... ''')
        >>> with TemporaryDirectory() as folder:
        ...     onnx.save(model, Path(folder, "model.onnx"))
        ...     int8_share(Path(folder, "model.onnx"))
        0.0
    """
    import onnx

    graph = onnx.load(str(path)).graph
    scaling = {
        name
        for node in graph.node
        if node.op_type in ("QuantizeLinear", "DequantizeLinear")
        for name in node.input[1:]
    }
    types = onnx.TensorProto
    bytes_ = (types.INT8, types.UINT8)
    floats = (types.FLOAT, types.DOUBLE, types.FLOAT16, types.BFLOAT16)
    sizes = {True: 0, False: 0}
    for weight in graph.initializer:
        known = weight.data_type in (*bytes_, *floats)
        if known and weight.name not in scaling and len(weight.dims) > 1:
            sizes[weight.data_type in bytes_] += prod(weight.dims)
    total = sum(sizes.values())
    return sizes[True] / total if total else None
