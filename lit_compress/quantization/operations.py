"""What is done with each operation of a captured graph when it is quantised."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch.fx import Node

aten = torch.ops.aten

#: Attribute that holds the user's network in a module made around it.
WRAPPED = "wrapped"

#: Operations with a weight, and the axis of the weight that holds the output channels.
WEIGHTED: dict[Any, int] = {
    aten.conv1d.default: 0,
    aten.conv2d.default: 0,
    aten.conv1d.padding: 0,
    aten.conv2d.padding: 0,
    aten.conv_transpose1d.default: 1,
    aten.conv_transpose2d.input: 1,
    aten.linear.default: 0,
}
#: Dimensions of the images that convolutions take.
IMAGE_DIMS: dict[Any, int] = {
    aten.conv1d.default: 1,
    aten.conv2d.default: 2,
    aten.conv1d.padding: 1,
    aten.conv2d.padding: 2,
    aten.conv_transpose1d.default: 1,
    aten.conv_transpose2d.input: 2,
}
NORMS = {aten.batch_norm.default}
#: Clip to two numbers, where both are given.
CLIPPING = {
    aten.hardtanh.default,
    aten.hardtanh_.default,
    aten.clamp.default,
    aten.clamp_.default,
}
#: Folded into the operation before: they cost nothing where it clips its sums anyway.
RECTIFIERS = {aten.relu.default, aten.relu_.default, aten.relu6.default, *CLIPPING}
#: Let a positive factor pass.
HOMOGENEOUS = {
    aten.relu.default,
    aten.relu_.default,
    aten.leaky_relu.default,
    aten.leaky_relu_.default,
}
#: Quantised on both sides, so that what is before them can give int8 out.
ACTIVATIONS = {
    aten.sigmoid.default,
    aten.sigmoid_.default,
    aten.hardsigmoid.default,
    aten.hardsigmoid_.default,
    aten.hardswish.default,
    aten.hardswish_.default,
    aten.silu.default,
    aten.silu_.default,
    aten.gelu.default,
    aten.leaky_relu.default,
    aten.leaky_relu_.default,
    aten.tanh.default,
    aten.elu.default,
    aten.elu_.default,
}
COMBINATIONS = {aten.add.Tensor, aten.add_.Tensor, aten.mul.Tensor, aten.mul_.Tensor}
CONCATENATIONS = {aten.cat.default}
AVERAGES = {
    aten.adaptive_avg_pool1d.default,
    aten.adaptive_avg_pool2d.default,
    aten.avg_pool1d.default,
    aten.avg_pool2d.default,
    aten.mean.dim,
}
#: Their outputs are some of their inputs, so both have one range.
CHOICES = {
    aten.max_pool1d.default,
    aten.max_pool2d.default,
    aten.upsample_nearest2d.vec,
    aten.upsample_nearest2d.default,
}
#: Only where elements are changes: what they give is what they got.
MOVEMENTS = {
    aten.alias.default,
    aten.channel_shuffle.default,
    aten.chunk.default,
    aten.clone.default,
    aten.contiguous.default,
    aten.detach.default,
    aten.dropout.default,
    aten.dropout_.default,
    aten.expand.default,
    aten.feature_dropout.default,
    aten.flatten.using_ints,
    aten.movedim.int,
    aten.permute.default,
    aten.pixel_shuffle.default,
    aten.pixel_unshuffle.default,
    aten.reshape.default,
    aten.select.int,
    aten.slice.Tensor,
    aten.split.Tensor,
    aten.split_with_sizes.default,
    aten.squeeze.default,
    aten.squeeze.dim,
    aten.squeeze.dims,
    aten.t.default,
    aten.transpose.int,
    aten.unbind.int,
    aten.unflatten.int,
    aten.unsqueeze.default,
    aten.view.default,
    operator.getitem,
}


def origin(node: Node) -> Node:
    """Return the node that computed a value, before it was moved about."""
    while node.op == "call_function" and node.target in MOVEMENTS:
        source = node.args[0]
        if not isinstance(source, Node):
            return node
        node = source
    return node


def is_parameter(value: Any) -> bool:
    """Tell whether a node's argument is a weight of the network."""
    return isinstance(value, Node) and value.op == "get_attr"


def is_float(node: Any) -> bool:
    """Tell whether a node's argument is a tensor of real numbers."""
    value = node.meta.get("val") if isinstance(node, Node) else None
    return isinstance(value, torch.Tensor) and value.is_floating_point()


def channel_dim(layer: Node, value: torch.Tensor) -> int:
    """Return the dimension along which the channels of a layer's input or output lie."""
    if layer.target in WEIGHTED:
        return value.dim() - 1 - IMAGE_DIMS.get(layer.target, 0)  # there may be no batch
    return 1


def layer_names(nodes: Iterable[Node], inputs: Sequence[str]) -> dict[Node, str]:
    """Return a name for each node: that of its weight, or its module's path and the operation.

    ``features.0`` is the operation that uses ``features.0.weight``; ``block/add`` is the addition
    in the forward of ``block``, and ``block/add:2`` the next one.

    Args:
        nodes: Nodes of the graph, in order.
        inputs: Names of the network's inputs.
    """
    names: dict[Node, str] = {}
    taken: dict[str, int] = {}
    given = iter(inputs)
    for node in nodes:
        if node.op == "placeholder":
            name = next(given, node.name)
        else:
            name = node.name if node.op != "call_function" else _weight_name(node)
        name = name or f"{_module_path(node)}/{_operation(node)}".lstrip("/")
        taken[name] = taken.get(name, 0) + 1
        names[node] = name if taken[name] == 1 else f"{name}:{taken[name]}"
    return names


def _weight_name(node: Node) -> str:
    if node.target not in WEIGHTED or not is_parameter(node.args[1]):
        return ""
    weight = node.args[1]
    target = str(weight.target) if isinstance(weight, Node) else ""
    return _unwrapped(target.removesuffix("weight").rstrip("._") or target)


def _module_path(node: Node) -> str:
    stack = [entry[0] for entry in (node.meta.get("nn_module_stack") or {}).values()]
    return _unwrapped(stack[-1]) if stack and "_metadata_hook" not in stack[-1] else ""


def _unwrapped(name: str) -> str:
    """Return a name as it is in the user's network, which may be wrapped for the export."""
    return "" if name == WRAPPED else name.removeprefix(f"{WRAPPED}.")


def _operation(node: Node) -> str:
    name = getattr(node.target, "__name__", str(node.target))
    return name.partition(".")[0].rstrip("_")
