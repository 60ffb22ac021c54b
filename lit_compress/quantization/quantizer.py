"""Where quantise/dequantise pairs go, so that ONNX Runtime and OpenVINO fuse every one of them."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch.fx import GraphModule, Node

from lit_compress.quantization.pt2e import (
    PerChannelMinMaxObserver,
    QuantizationAnnotation,
    QuantizationSpec,
    Quantizer,
    SharedQuantizationSpec,
)

aten = torch.ops.aten

WEIGHTED = {aten.conv1d.default, aten.conv2d.default, aten.linear.default}
RECTIFIERS = {
    aten.relu.default,
    aten.relu_.default,
    aten.hardtanh.default,
    aten.hardtanh_.default,
}
ADDITIONS = {aten.add.Tensor, aten.add_.Tensor}
AVERAGES = {aten.adaptive_avg_pool2d.default, aten.avg_pool2d.default, aten.mean.dim}
SPLITS = {aten.chunk.default, aten.split.Tensor, aten.split_with_sizes.default}
MOVEMENTS = {
    aten.max_pool2d.default,
    aten.view.default,
    aten.reshape.default,
    aten.flatten.using_ints,
    aten.transpose.int,
    aten.permute.default,
    aten.contiguous.default,
    aten.clone.default,
    aten.dropout.default,
    aten.dropout_.default,
}
ANNOTATION = "quantization_annotation"
EPS = 2**-12


class OnnxQuantizer(Quantizer):  # type: ignore[misc]
    """Annotates a captured graph for uint8 activations and per-channel int8 weights.

    Convolutions and linear layers are quantised with the rectifier that follows folded in;
    additions, concatenations and averages on both sides; data movement keeps the range of what it
    moves. The network's outputs stay float.

    Args:
        observer: Observer constructor for activations, which turns a range into a scale.
    """

    def __init__(self, observer: Any) -> None:
        super().__init__()
        self.activation = QuantizationSpec(
            torch.uint8,
            observer.with_args(eps=EPS),
            0,
            255,
            qscheme=torch.per_tensor_affine,
        )
        self.weight = QuantizationSpec(
            torch.int8,
            PerChannelMinMaxObserver.with_args(eps=EPS),
            -127,
            127,
            qscheme=torch.per_channel_symmetric,
            ch_axis=0,
        )

    def annotate(self, model: GraphModule) -> GraphModule:
        """Mark every node that is to be quantised, in the order of the graph."""
        results = next(node for node in model.graph.nodes if node.op == "output").all_input_nodes
        self._float_outputs = set(results)
        self._quantized: set[Node] = set()
        for node in model.graph.nodes:
            if node.op == "call_function" and ANNOTATION not in node.meta:
                self._annotate_node(node)
        return model

    def validate(self, model: GraphModule) -> None:
        """Accept every graph: what cannot be quantised was left in float."""

    def _annotate_node(self, node: Node) -> None:
        if node.target in WEIGHTED:
            inputs = {node.args[0]: self.activation, node.args[1]: self.weight}
            self._with_rectifier(node, inputs)
        elif node.target in ADDITIONS:
            terms = [term for term in node.args[:2] if isinstance(term, Node)]
            if len(terms) == 2 and all(_is_float(term) for term in terms):
                self._with_rectifier(node, dict.fromkeys(terms, self.activation))
        elif node.target is aten.cat.default:
            self._concatenation(node)
        elif node.target in AVERAGES or node.target in RECTIFIERS:
            if node.args[0] in self._quantized:
                self._mark(node, {node.args[0]: self.activation}, self._output(node))
        elif node.target in SPLITS:
            if node.args[0] in self._quantized:
                self._mark(node, {node.args[0]: self.activation}, None)
        elif node.target is operator.getitem:
            self._part(node)
        elif node.target in MOVEMENTS and node.args[0] in self._quantized:
            source = node.args[0]
            shared = None if node in self._float_outputs else _shared(source, node)
            self._mark(node, {source: self.activation}, shared)

    def _with_rectifier(self, node: Node, inputs: dict[Any, Any]) -> None:
        users = list(node.users)
        follower = users[0] if len(users) == 1 and users[0].target in RECTIFIERS else None
        if follower is None:
            self._mark(node, inputs, self._output(node))
        else:
            self._mark(node, inputs, None)
            self._mark(follower, {}, self._output(follower))

    def _concatenation(self, node: Node) -> None:
        parts = node.args[0]
        if not isinstance(parts, (list, tuple)) or not all(
            isinstance(part, Node) and part in self._quantized for part in parts
        ):
            return
        first = parts[0]
        shared = _shared(first, node)
        inputs = {part: self.activation if part is first else shared for part in parts}
        self._mark(node, inputs, None if node in self._float_outputs else shared)

    def _part(self, node: Node) -> None:
        source = node.args[0]
        if isinstance(source, Node) and source in self._quantized and source.target in SPLITS:
            shared = _shared(source.args[0], source)
            self._mark(node, {}, None if node in self._float_outputs else shared)

    def _output(self, node: Node) -> QuantizationSpec | None:
        return None if node in self._float_outputs else self.activation

    def _mark(self, node: Node, inputs: dict[Any, Any], output: Any) -> None:
        node.meta[ANNOTATION] = QuantizationAnnotation(
            input_qspec_map=inputs, output_qspec=output, _annotated=True
        )
        self._quantized.add(node)


def _shared(source: Any, node: Node) -> SharedQuantizationSpec:
    return SharedQuantizationSpec((source, node))


def _is_float(node: Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, torch.Tensor) and value.is_floating_point()
