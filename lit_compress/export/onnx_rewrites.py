"""The form of an ONNX graph that ONNX Runtime and OpenVINO read best; its outputs stay the same.

Each function changes a model in place. What they rest on was seen in ONNX Runtime 1.24 to 1.32.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, helper, numpy_helper

#: Operations whose float weights ONNX Runtime quantises between quantised neighbours.
REQUANTISED = {"Conv", "ConvTranspose", "Gemm"}
SPATIAL = ([2, 3], [-2, -1], [-1, -2], [3, 2])


def reform(model: ModelProto, batch: str) -> None:
    """Make all the changes below, and name the batch axis."""
    slim(model, batch)
    drop_unused_inputs(model)
    pool_globally(model)
    keep_floats(model)
    quantize_last_biases(model)


def slim(model: ModelProto, batch: str) -> None:
    """Drop stack traces and inferred shapes, a third of a small file, and name the batch axis."""
    graph = model.graph
    del graph.value_info[:]
    for owner in (model, graph, *graph.node, *graph.initializer, *graph.input, *graph.output):
        del owner.metadata_props[:]
        owner.doc_string = ""
    for value in (*graph.input, *graph.output):
        axes = value.type.tensor_type.shape.dim
        if axes and axes[0].dim_param:
            axes[0].dim_param = batch


def drop_unused_inputs(model: ModelProto) -> None:
    """Drop the inputs that nothing takes, such as the labels in a mapping."""
    taken = {name for node in model.graph.node for name in node.input}
    for value in [value for value in model.graph.input if value.name not in taken]:
        model.graph.input.remove(value)


def pool_globally(model: ModelProto) -> None:
    """Write means over a quantised image as global pools, which have an int8 form."""
    graph = _Graph(model.graph)
    made: list[NodeProto] = []
    for node in graph.proto.node:
        if (
            node.op_type != "ReduceMean"
            or graph.axes(node) not in SPATIAL
            or not graph.is_made_by(node.input[0], "DequantizeLinear")
        ):
            made.append(node)
        elif _attribute(node, "keepdims", 1):
            made.append(_node("GlobalAveragePool", [node.input[0]], list(node.output)))
        else:
            whole = f"{node.output[0]}.pooled"
            axes = graph.constant(f"{node.output[0]}.axes", np.array([2, 3], np.int64))
            made.append(_node("GlobalAveragePool", [node.input[0]], [whole]))
            made.append(_node("Squeeze", [whole, axes], list(node.output)))
    graph.replace(made)


def keep_floats(model: ModelProto) -> None:
    """Guard the float weights between quantised neighbours against being quantised on load.

    ONNX Runtime's WeightBiasQuantization quantises them unless something stands before the next
    quantisation. A LeakyRelu of slope 1 changes nothing, stays, and is folded into the operation.
    """
    graph = _Graph(model.graph)
    made: list[NodeProto] = []
    for node in graph.proto.node:
        made.append(node)
        if (
            node.op_type in REQUANTISED
            and node.input[1] in graph.initializers
            and graph.is_made_by(node.input[0], "DequantizeLinear")
        ):
            name = node.output[0]
            node.output[0] = f"{name}.float"
            made.append(_node("LeakyRelu", [node.output[0]], [name], alpha=1.0))
    graph.replace(made)


def quantize_last_biases(model: ModelProto) -> None:
    """Quantise the biases of int8 Gemms whose output stays float: they are run in int8 then."""
    graph = _Graph(model.graph)
    made: list[NodeProto] = []
    for node in graph.proto.node:
        if node.op_type == "Gemm" and len(node.input) == 3:
            made.extend(_quantized_bias(graph, node))
        made.append(node)
    graph.replace(made)


def _quantized_bias(graph: _Graph, gemm: NodeProto) -> list[NodeProto]:
    data, weight = (graph.makers.get(name) for name in gemm.input[:2])
    if data is None or weight is None or {data.op_type, weight.op_type} != {"DequantizeLinear"}:
        return []
    if any(user.op_type != "LeakyRelu" for user in graph.users(gemm.output[0])):
        return []
    bias = graph.values(gemm.input[2])
    scales = [graph.values(node.input[1]) for node in (data, weight)]
    if bias is None or scales[0] is None or scales[1] is None:
        return []
    scale = (scales[0].astype(np.float64) * scales[1]).reshape(-1).astype(np.float32)
    whole = np.rint(bias.astype(np.float64) / scale)
    if np.abs(whole).max(initial=0) > 2**30:
        return []
    name = gemm.input[2]
    inputs = [
        graph.constant(f"{name}.int32", whole.astype(np.int32)),
        graph.constant(f"{name}.scale", scale),
        graph.constant(f"{name}.zero", np.zeros(len(scale), np.int32)),
    ]
    gemm.input[2] = f"{name}.dequantized"
    return [_node("DequantizeLinear", inputs, [gemm.input[2]], axis=0)]


class _Graph:
    """A graph with an index of what makes each value."""

    def __init__(self, proto: GraphProto) -> None:
        self.proto = proto
        self.initializers = {item.name: item for item in proto.initializer}
        self.makers = {name: node for node in proto.node for name in node.output}

    def is_made_by(self, value: str, operation: str) -> bool:
        maker = self.makers.get(value)
        return maker is not None and maker.op_type == operation

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
        """Put these nodes in the place of all, and drop the initializers none of them takes."""
        kept = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
        del self.proto.node[:]
        self.proto.node.extend(kept)
        taken = {name for node in kept for name in node.input}
        for item in [item for item in self.proto.initializer if item.name not in taken]:
            self.proto.initializer.remove(item)


def _node(operation: str, inputs: list[str], outputs: list[str], **attributes: Any) -> NodeProto:
    return helper.make_node(operation, inputs, outputs, name=f"{outputs[0]}.node", **attributes)


def _attribute(node: NodeProto, name: str, default: Any) -> Any:
    for attribute in node.attribute:
        if attribute.name == name:
            return helper.get_attribute_value(attribute)
    return default
