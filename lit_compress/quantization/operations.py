"""Classes of operations in a captured graph, and the names of layers."""

from __future__ import annotations

import operator
import re
from collections.abc import Collection, Iterable, Sequence
from operator import attrgetter
from typing import Any

import torch
from torch import nn
from torch.fx import Node

aten = torch.ops.aten

#: Attribute of a wrapper module that holds the user's network.
WRAPPED = "wrapped"

#: Operations with a weight, and the axis of the weight that holds the output channels.
WEIGHTED: dict[Any, int] = {
    aten.conv1d.default: 0,
    aten.conv2d.default: 0,
    aten.conv1d.padding: 0,
    aten.conv2d.padding: 0,
    aten.conv_transpose1d.default: 1,
    aten.conv_transpose2d.input: 1,
    aten.conv3d.default: 0,
    aten.conv3d.padding: 0,
    aten.linear.default: 0,
    aten.matmul.default: 1,
}
#: Number of spatial dimensions of convolutions.
IMAGE_DIMS: dict[Any, int] = {
    aten.conv1d.default: 1,
    aten.conv2d.default: 2,
    aten.conv1d.padding: 1,
    aten.conv2d.padding: 2,
    aten.conv3d.default: 3,
    aten.conv3d.padding: 3,
    aten.conv_transpose1d.default: 1,
    aten.conv_transpose2d.input: 2,
}
NORMS = {aten.batch_norm.default}
#: Operations that clip to two numbers, if both are given.
CLIPPING = {
    aten.hardtanh.default,
    aten.hardtanh_.default,
    aten.clamp.default,
    aten.clamp_.default,
}
#: Operations that the runtimes fold into the layer before, as part of its clipping to uint8.
RECTIFIERS = {aten.relu.default, aten.relu_.default, aten.relu6.default, *CLIPPING}
#: Operations with f(s * x) = s * f(x) for every positive s.
HOMOGENEOUS = {
    aten.relu.default,
    aten.relu_.default,
    aten.leaky_relu.default,
    aten.leaky_relu_.default,
}
#: Activation functions whose input and output are quantised, so that the layer before is int8.
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
#: Operations that only select elements, so that input and output share one range.
CHOICES = {
    aten.max_pool1d.default,
    aten.max_pool2d.default,
    aten.upsample_nearest2d.vec,
    aten.upsample_nearest2d.default,
}
#: Operations that only move elements, in eval mode.
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


#: Those of them that leave elements out.
SELECTIONS = {
    aten.chunk.default,
    aten.select.int,
    aten.slice.Tensor,
    aten.split.Tensor,
    aten.split_with_sizes.default,
    aten.unbind.int,
    operator.getitem,
}


def origin(node: Node, through: Collection[Any] = MOVEMENTS) -> Node:
    """Return the node that computed a value, behind all operations that only moved elements.

    Args:
        node: The value.
        through: The operations to look behind.
    """
    while node.op == "call_function" and node.target in through:
        source = node.args[0]
        if not isinstance(source, Node):
            return node
        node = source
    return node


def is_parameter(value: Any) -> bool:
    """Tell whether an argument of a node is a parameter or buffer of the network."""
    return isinstance(value, Node) and value.op == "get_attr"


def is_float(node: Any) -> bool:
    """Tell whether an argument of a node is a floating-point tensor."""
    value = node.meta.get("val") if isinstance(node, Node) else None
    return isinstance(value, torch.Tensor) and value.is_floating_point()


def has_weight(node: Node) -> bool:
    """Tell whether a layer can be int8: its weight is a parameter or buffer, its input is float.

    A product of matrices counts if its second factor is a parameter of two dimensions: with a
    buffer it is mostly a fixed transform, such as that to the frequencies of a sound.
    """
    if not is_parameter(node.args[1]) or not is_float(node.args[0]):
        return False
    if node.target is not aten.matmul.default:
        return True
    weight: Any = node.args[1]
    value = attrgetter(str(weight.target))(weight.graph.owning_module)
    image = node.args[0].meta["val"]  # type: ignore[union-attr]
    return isinstance(value, nn.Parameter) and value.dim() == 2 and image.dim() > 1


def channel_dim(layer: Node, value: torch.Tensor) -> int:
    """Return the channel dimension of a layer's input or output.

    Args:
        layer: The layer.
        value: Input or output of the layer.
    """
    if layer.target in WEIGHTED:
        return value.dim() - 1 - IMAGE_DIMS.get(layer.target, 0)  # with or without a batch
    return 1


def layer_names(nodes: Iterable[Node], inputs: Sequence[str]) -> dict[Node, str]:
    """Return a unique name for each node: that of its weight, or its module and operation.

    ``features.0`` is the operation that uses ``features.0.weight``; ``block/add`` is the first
    addition in the forward of ``block``, and ``block/add:2`` the second one.

    Args:
        nodes: Nodes of the graph, in order.
        inputs: Names of the network's inputs, in order.

    Example:
        >>> from torch import nn
        >>> program = torch.export.export(nn.Sequential(nn.Linear(3, 2), nn.ReLU()).eval(),
        ...                               (torch.zeros(1, 3),))
        >>> names = layer_names(program.module(check_guards=False).graph.nodes, ["input"])
        >>> [name for node, name in names.items() if node.op in ("placeholder", "call_function")]
        ['input', '0', '1/relu']
    """
    names: dict[Node, str] = {}
    counts: dict[str, int] = {}
    remaining_inputs = iter(inputs)
    for node in nodes:
        if node.op == "get_attr":  # not a layer: its name may be that of the layer that reads it
            names[node] = str(node.target)
            continue
        if node.op == "placeholder":
            name = next(remaining_inputs, node.name)
        else:
            name = node.name if node.op != "call_function" else _weight_name(node)
        name = name or f"{module_path(node)}/{operation_name(node)}".lstrip("/")
        counts[name] = counts.get(name, 0) + 1
        names[node] = name if counts[name] == 1 else f"{name}:{counts[name]}"
    return names


def _weight_name(node: Node) -> str:
    """Return the name of a layer's weight without ``.weight``; empty if it has no weight."""
    if node.target not in WEIGHTED or not is_parameter(node.args[1]):
        return ""
    weight = node.args[1]
    target = str(weight.target) if isinstance(weight, Node) else ""
    # A weight that was computed has a number behind its name if the name was taken.
    return _unwrapped(re.sub(r"weight(_\d+)?$", "", target).rstrip("._") or target)


def module_path(node: Node) -> str:
    """Return the path of the module whose forward calls an operation; empty for the root."""
    stack = [entry[0] for entry in (node.meta.get("nn_module_stack") or {}).values()]
    return _unwrapped(stack[-1]) if stack and "_metadata_hook" not in stack[-1] else ""


def _unwrapped(name: str) -> str:
    """Return a name without the prefixes of the wrappers that the export may add."""
    while name == WRAPPED or name.startswith(f"{WRAPPED}."):
        name = name[len(WRAPPED) + 1 :]
    return name


def operation_name(node: Node) -> str:
    """Return the plain name of an operation, such as ``add`` for ``aten.add_.Tensor``."""
    name = getattr(node.target, "__name__", str(node.target))
    return name.partition(".")[0].rstrip("_")
