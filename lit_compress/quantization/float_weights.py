"""Which weights of a network stay float in its int8 file, and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any

from torch import Tensor
from torch.fx import GraphModule, Node

from lit_compress.artifact.variant import FloatWeight
from lit_compress.quantization.operations import (
    WEIGHTED,
    aten,
    is_float,
    is_parameter,
    layer_names,
    operation_name,
)

#: Why operations stay float whose weights are well known.
REASONS: dict[Any, str] = {
    aten.embedding.default: "an embedding looks up rows and multiplies nothing",
}
CHOSEN = "left in float by skip or max_drop"


def float_weights(
    graph: GraphModule, names: Sequence[str], layers: Collection[str], floats: Collection[str]
) -> tuple[FloatWeight, ...]:
    """Return the weights of a captured graph that are not converted to int8, largest first.

    Weights are the tensors of two and more dimensions.

    Args:
        graph: The captured graph.
        names: Names of the network's inputs.
        layers: Names of the layers that can be quantised.
        floats: Those of them that stay float.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> net = nn.Sequential(nn.Embedding(6, 4), nn.Linear(4, 2)).eval()
        >>> graph = torch.export.export(net, (torch.zeros(2, 3, dtype=torch.long),))
        >>> for weight in float_weights(graph.module(check_guards=False), ["ids"], ["1"], []):
        ...     print(f"{weight.name} {weight.share:.2f} {weight.reason}")
        0/embedding 0.75 an embedding looks up rows and multiplies nothing
    """
    sizes: dict[str, int] = {}
    stay: dict[str, tuple[str, str, int]] = {}
    for node, name in layer_names(graph.graph.nodes, names).items():
        for source in node.all_input_nodes:
            tensor = _weight(graph, source)
            if tensor is None or node.op != "call_function":
                continue
            sizes[str(source.target)] = tensor.numel()
            if (reason := _reason(node, source, name, layers, floats)) is not None:
                stay.setdefault(str(source.target), (name, reason, tensor.numel()))
    total = sum(sizes.values())
    by_layer: Counter[tuple[str, str]] = Counter()
    for name, reason, size in stay.values():
        by_layer[name, reason] += size
    return tuple(FloatWeight(key[0], size / total, key[1]) for key, size in by_layer.most_common())


def _weight(graph: GraphModule, node: Node) -> Tensor | None:
    if not is_parameter(node):
        return None
    value: Any = graph
    for part in str(node.target).split("."):
        value = getattr(value, part)
    is_weight = isinstance(value, Tensor) and value.dim() > 1 and value.is_floating_point()
    return value if is_weight else None


def _reason(
    node: Node, source: Node, name: str, layers: Collection[str], floats: Collection[str]
) -> str | None:
    """Return why a tensor stays float where a node reads it; None if it becomes int8."""
    if node.target in WEIGHTED and source is node.args[1]:
        if name in floats:
            return CHOSEN
        if name in layers:
            return None
        if not is_float(node.args[0]):
            return "its input is not a float tensor"
    return REASONS.get(node.target, f"{operation_name(node)} has no int8 form here")
