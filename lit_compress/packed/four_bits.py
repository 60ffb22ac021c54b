"""Round the int8 weights of an ONNX file to 4 bits per weight; the file stays an int8 file."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np

from lit_compress.packed.levels import Channels, to_codes, to_weights
from lit_compress.packed.model import pack_tensors
from lit_compress.packed.onnx_tensors import find_tensors

#: Weights of a channel, at least: fewer of them have no more than 16 values already, so that
#: rounding saves almost nothing, and depthwise layers lose most by it.
FEWEST = 16
#: Dimension of the output channels in the weight that an operation reads as its second input.
OUTPUTS = {"Conv": 0, "ConvTranspose": 1, "MatMul": 1, "Gemm": 1}


@dataclass(frozen=True)
class Rounded:
    """An int8 ONNX file whose weights are of 4 bits.

    Attributes:
        onnx: The ONNX file with the rounded weights.
        packed: The packed file, with 4 bits per weight.
        weights: Number of weights that were rounded.
        zeroed: Number of weights that are zero and were not before.
    """

    onnx: bytes
    packed: bytes
    weights: int
    zeroed: int


def round_onnx(data: bytes, source: str = "the ONNX file") -> Rounded:
    """Round the int8 weights of convolutions and linear layers to 16 levels a channel.

    Zero stays zero, and the scales of the file stay. The outputs of the network change. Channels of
    fewer than 16 weights, as those of depthwise convolutions, stay as they are.

    Args:
        data: Content of an int8 ONNX file, whose weights are read by DequantizeLinear.
        source: Its name, for error messages.

    Raises:
        ArtifactError: If it is not an ONNX file, or keeps tensors in other files.
    """
    axes = _channel_axes(data)
    tensors, codes, content, zeroed = [], {}, bytearray(data), 0
    for place, tensor in enumerate(find_tensors(data, source)):
        axis = axes.get(tensor.name)
        if axis is not None and tensor.size >= FEWEST * tensor.shape[axis]:
            grid = Channels(tensor.shape[axis], prod(tensor.shape[axis + 1 :]))
            before = np.frombuffer(data, np.int8, tensor.size, tensor.start)
            codes[place] = to_codes(before, grid)
            after = to_weights(*codes[place], grid)
            content[tensor.start : tensor.end] = after.tobytes()
            zeroed += int(np.count_nonzero(before) - np.count_nonzero(after))
            tensor = replace(tensor, channels=grid)
        tensors.append(tensor)
    packed = pack_tensors(bytes(content), tensors, source, codes)
    weights = sum(tensors[place].size for place in codes)
    return Rounded(bytes(content), packed, weights, zeroed)


def _channel_axes(data: bytes) -> dict[str, int]:
    """Return the dimension of the output channels of each symmetric int8 weight, by name."""
    import onnx

    graph = onnx.load_model_from_string(data).graph
    initializers = {tensor.name: tensor for tensor in graph.initializer}
    readers = {name: node for node in graph.node for name in list(node.input)[1:2]}
    found = {}
    for node in graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in initializers:
            reader = readers.get(node.output[0])
            weight = initializers[node.input[0]]
            if reader is None or reader.op_type not in OUTPUTS or len(weight.dims) < 2:
                continue
            if weight.data_type == onnx.TensorProto.INT8 and _symmetric(node, initializers):
                found[node.input[0]] = _axis(node, reader, initializers)
    return found


def _symmetric(node: Any, initializers: dict[str, Any]) -> bool:
    from onnx import numpy_helper

    if len(node.input) < 3 or not node.input[2]:
        return True
    point = initializers.get(node.input[2])
    return point is not None and not numpy_helper.to_array(point).any()


def _axis(node: Any, reader: Any, initializers: dict[str, Any]) -> int:
    """Return the dimension that the scales go along; for one scale, that of the reader."""
    dimensions = len(initializers[node.input[0]].dims)
    scale = initializers.get(node.input[1])
    if scale is not None and prod(scale.dims) > 1:
        given = [item.i for item in node.attribute if item.name == "axis"]
        return int(given[0] if given else 1) % dimensions
    turned = any(item.name == "transB" and item.i for item in reader.attribute)
    return 0 if turned else OUTPUTS[reader.op_type]
