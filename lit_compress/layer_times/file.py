"""An ONNX file of copies of one int8 layer, as ONNX Runtime computes it in a whole network.

When it loads a file of quantise and dequantise operations, ONNX Runtime replaces them by integer
operations, and lets the channels be the last axis. These operations stand in the file directly, so
that no change of layout is timed with the layer. On a processor without VNNI the weights are uint8,
as :func:`~lit_compress.runtimes.session.open_session` has them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lit_compress.layer_times.layer import Layer
from lit_compress.runtimes.processor import lacks_vnni

#: Domain of the integer operations.
DOMAIN = "com.microsoft"
#: Names of the scale and the zero point of all activations.
SCALE, ZERO = "scale", "zero"


def write_copies(layer: Layer, copies: int) -> bytes:
    """Return an ONNX file with copies of a layer, each with weights of its own.

    All copies read the input ``x``, an array of uint8 with the batch on the first axis and the
    channels on the last; the first computes the output ``y0``.

    Args:
        layer: The layer.
        copies: Number of copies.
    """
    from onnx import TensorProto, helper, numpy_helper

    random = np.random.default_rng(0)
    tensors = {SCALE: np.float32(0.05), ZERO: np.uint8(128)}
    nodes = []
    for copy in range(copies):
        own = _tensors(layer, random)
        tensors |= {f"{name}{copy}": value for name, value in own.items()}
        nodes.append(_node(layer, copy, helper))
    axes = (layer.inputs,) if layer.groups == 0 else (*layer.space, layer.inputs)
    image = helper.make_tensor_value_info("x", TensorProto.UINT8, ("rows", *axes))
    results = [
        helper.make_tensor_value_info(f"y{copy}", TensorProto.UINT8, None) for copy in range(copies)
    ]
    stored = [numpy_helper.from_array(np.asarray(value), name) for name, value in tensors.items()]
    graph = helper.make_graph(nodes, "copies", [image], results, stored)
    versions = [helper.make_opsetid("", 18), helper.make_opsetid(DOMAIN, 1)]
    content: bytes = helper.make_model(
        graph, opset_imports=versions, ir_version=8
    ).SerializeToString()
    return content


def input_array(layer: Layer, batch: int) -> np.ndarray:
    """Return an input of the file.

    Args:
        layer: The layer.
        batch: Batch size.
    """
    shape = (batch, *layer.space, layer.inputs)
    if layer.groups == 0:
        shape = (batch * layer.space[0], layer.inputs)
    return np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)


def _tensors(layer: Layer, random: np.random.Generator) -> dict[str, Any]:
    """Return weights, their scales and zero points, and a bias."""
    shape: tuple[int, ...] = (layer.outputs, layer.inputs)
    if layer.groups:
        shape = (layer.outputs, layer.inputs // layer.groups, *layer.kernel)
    kind, zero = (np.uint8, 128) if lacks_vnni() else (np.int8, 0)
    return {
        "weight": (random.integers(-127, 128, shape) + zero).astype(kind),
        "weight_scale": np.full(layer.outputs, 0.01, np.float32),
        "weight_zero": np.full(layer.outputs, zero, kind),
        "bias": np.zeros(layer.outputs, np.int32),
    }


def _node(layer: Layer, copy: int, helper: Any) -> Any:
    """Return the operation of one copy."""
    weight, scale, zero, bias = (
        f"{name}{copy}" for name in ("weight", "weight_scale", "weight_zero", "bias")
    )
    if layer.groups == 0:
        inputs = ["x", SCALE, ZERO, weight, scale, zero, bias, SCALE, ZERO]
        return helper.make_node("QGemm", inputs, [f"y{copy}"], domain=DOMAIN, transB=1)
    inputs = ["x", SCALE, ZERO, weight, scale, zero, SCALE, ZERO, bias]
    return helper.make_node(
        "QLinearConv",
        inputs,
        [f"y{copy}"],
        domain=DOMAIN,
        channels_last=1,
        group=layer.groups,
        kernel_shape=layer.kernel,
        strides=layer.stride,
        pads=layer.padding,
        dilations=layer.dilation,
    )
