"""Rewrite an ONNX graph so that ONNX Runtime and OpenVINO fuse it best; its outputs stay the same.

Each function changes a model in place. The described behaviour of ONNX Runtime was observed in
versions 1.24 to 1.32.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, helper, numpy_helper

from lit_compress.export.onnx_lean import drop_defaults, share_initializers, shorten_names, slim

#: Operations whose float weights ONNX Runtime quantises if their neighbours are quantised.
REQUANTISED = {"Conv", "ConvTranspose", "Gemm"}
#: Number of axes of an image, with batch and channels.
IMAGE_RANK = 4


def rewrite(model: ModelProto, batch: str) -> None:
    """Apply all rewrites, those that make the file small last.

    Args:
        model: The model, changed in place.
        batch: Name for the batch axis.
    """
    pool_globally(model)
    slim(model, batch)
    drop_unused_inputs(model)
    keep_floats(model)
    quantize_last_biases(model)
    drop_defaults(model)
    share_initializers(model)
    shorten_names(model)


def drop_unused_inputs(model: ModelProto) -> None:
    """Remove inputs that no operation reads, such as the labels in a mapping."""
    used = {name for node in model.graph.node for name in node.input}
    for value in [value for value in model.graph.input if value.name not in used]:
        model.graph.input.remove(value)


def pool_globally(model: ModelProto) -> None:
    """Replace means over a quantised image by global pools.

    ONNX Runtime has an int8 kernel for GlobalAveragePool, and none for ReduceMean. A video has an
    axis more, and tokens have one less: a global pool is then another mean.

    Args:
        model: The model with the shapes of its values; changed in place.
    """
    graph = _Graph(model.graph)
    nodes: list[NodeProto] = []
    for node in graph.proto.node:
        if (
            node.op_type != "ReduceMean"
            or graph.rank(node.input[0]) != IMAGE_RANK
            or {axis % IMAGE_RANK for axis in graph.axes(node)} != {2, 3}
            or not graph.is_output_of(node.input[0], "DequantizeLinear")
        ):
            nodes.append(node)
        elif _attribute(node, "keepdims", 1):
            nodes.append(_node("GlobalAveragePool", [node.input[0]], list(node.output)))
        else:
            pooled = f"{node.output[0]}.pooled"
            axes = graph.constant(f"{node.output[0]}.axes", np.array([2, 3], np.int64))
            nodes.append(_node("GlobalAveragePool", [node.input[0]], [pooled]))
            nodes.append(_node("Squeeze", [pooled, axes], list(node.output)))
    graph.replace(nodes)


def keep_floats(model: ModelProto) -> None:
    """Prevent ONNX Runtime from quantising the float weights of layers that must stay float.

    When it loads a file, its optimizer WeightBiasQuantization quantises the float weight of a layer
    between a DequantizeLinear and a QuantizeLinear
    (https://github.com/microsoft/onnxruntime/pull/22969). A LeakyRelu of slope 1 behind the layer
    prevents this. It changes no value, is not removed by the optimizer as an Identity would be, and
    is fused into the layer.
    """
    graph = _Graph(model.graph)
    nodes: list[NodeProto] = []
    for node in graph.proto.node:
        nodes.append(node)
        if (
            node.op_type in REQUANTISED
            and node.input[1] in graph.initializers
            and graph.is_output_of(node.input[0], "DequantizeLinear")
        ):
            name = node.output[0]
            node.output[0] = f"{name}.float"
            nodes.append(_node("LeakyRelu", [node.output[0]], [name], alpha=1.0))
    graph.replace(nodes)


def quantize_last_biases(model: ModelProto) -> None:
    """Quantise the biases of int8 Gemms with float output.

    ONNX Runtime runs such a Gemm in int8 only if its bias is int32; otherwise it dequantises the
    weights in every call.
    """
    graph = _Graph(model.graph)
    nodes: list[NodeProto] = []
    for node in graph.proto.node:
        if node.op_type == "Gemm" and len(node.input) == 3:
            nodes.extend(_quantized_bias(graph, node))
        nodes.append(node)
    graph.replace(nodes)


def _quantized_bias(graph: _Graph, gemm: NodeProto) -> list[NodeProto]:
    """Store the bias of a Gemm as int32, and return the node that dequantises it.

    Returns:
        No node if the Gemm is not int8, its output is quantised, or the int32 range is too small.
    """
    data, weight = (graph.producers.get(name) for name in gemm.input[:2])
    if data is None or weight is None or {data.op_type, weight.op_type} != {"DequantizeLinear"}:
        return []
    # Other users of the output may quantise it, and ONNX Runtime then quantises the bias itself.
    if any(user.op_type != "LeakyRelu" for user in graph.users(gemm.output[0])):
        return []
    bias = graph.values(gemm.input[2])
    scales = [graph.values(node.input[1]) for node in (data, weight)]
    if bias is None or scales[0] is None or scales[1] is None:
        return []
    scale = (scales[0].astype(np.float64) * scales[1]).reshape(-1).astype(np.float32)
    steps = np.rint(bias.astype(np.float64) / scale)
    if np.abs(steps).max(initial=0) > 2**30:
        return []
    name = gemm.input[2]
    inputs = [
        graph.constant(f"{name}.int32", steps.astype(np.int32)),
        graph.constant(f"{name}.scale", scale),
        graph.constant(f"{name}.zero", np.zeros(len(scale), np.int32)),
    ]
    gemm.input[2] = f"{name}.dequantized"
    return [_node("DequantizeLinear", inputs, [gemm.input[2]], axis=0)]


class _Graph:
    """A graph with an index of its initializers and of the node that produces each value."""

    def __init__(self, proto: GraphProto) -> None:
        self.proto = proto
        self.initializers = {item.name: item for item in proto.initializer}
        self.producers = {name: node for node in proto.node for name in node.output}
        self._ranks = {
            value.name: len(value.type.tensor_type.shape.dim)
            for value in (*proto.value_info, *proto.input, *proto.output)
        }

    def is_output_of(self, value: str, operation: str) -> bool:
        producer = self.producers.get(value)
        return producer is not None and producer.op_type == operation

    def rank(self, value: str) -> int | None:
        """Return the number of axes of a value, None if it is not known."""
        return self._ranks.get(value)

    def users(self, value: str) -> list[NodeProto]:
        return [node for node in self.proto.node if value in node.input]

    def values(self, name: str) -> np.ndarray | None:
        found = self.initializers.get(name)
        return None if found is None else numpy_helper.to_array(found)

    def axes(self, node: NodeProto) -> list[int]:
        if len(node.input) > 1:
            found = self.values(node.input[1])
            return [] if found is None else [int(axis) for axis in found]
        return list(_attribute(node, "axes", []))

    def constant(self, name: str, values: np.ndarray) -> str:
        if name not in self.initializers:
            self.proto.initializer.append(numpy_helper.from_array(values, name))
            self.initializers[name] = self.proto.initializer[-1]
        return name

    def replace(self, nodes: list[NodeProto]) -> None:
        """Replace all nodes by these, and remove the initializers that none of them reads."""
        kept = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
        del self.proto.node[:]
        self.proto.node.extend(kept)
        used = {name for node in kept for name in node.input}
        for item in [item for item in self.proto.initializer if item.name not in used]:
            self.proto.initializer.remove(item)


def _node(operation: str, inputs: list[str], outputs: list[str], **attributes: Any) -> NodeProto:
    return helper.make_node(operation, inputs, outputs, name=f"{outputs[0]}.node", **attributes)


def _attribute(node: NodeProto, name: str, default: Any) -> Any:
    for attribute in node.attribute:
        if attribute.name == name:
            return helper.get_attribute_value(attribute)
    return default
