"""Give a quantised graph the form that a runtime reads as int8.

The graph has unsigned 8-bit activations and int8 weights, as ONNX Runtime is fastest with. Others
read signed activations only: the same numbers less 128, with a zero point less 128.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn


def signed_graph(
    network: nn.Module, inputs: Sequence[Tensor]
) -> tuple[fx.GraphModule, tuple[str, ...]]:
    """Return the graph of a network as runtimes with signed activations read it, and a note.

    Args:
        network: The network; it is not changed.
        inputs: Its inputs, with the batch size of the graph.
    """
    graph = captured(network, inputs)
    signed(graph)
    floats = unfused(graph)
    fold(graph, floats)
    return graph, told(len(floats))


def captured(network: nn.Module, inputs: Sequence[Tensor]) -> fx.GraphModule:
    """Return the graph of a quantised network for one batch size, as a copy.

    Args:
        network: The network.
        inputs: Its inputs.
    """
    copied = tuple(tensor.clone() for tensor in inputs)
    with torch.no_grad():
        program = torch.export.export(copy.deepcopy(network), copied)
    found: fx.GraphModule = program.module(check_guards=False)
    return found


def signed(graph: fx.GraphModule) -> None:
    """Let all 8-bit activations be signed. The outputs stay the same, to the last bit.

    Args:
        graph: The graph; it is changed.
    """
    for node in graph.graph.nodes:
        if _is(node, "quantize_per_tensor") or _is(node, "dequantize_per_tensor"):
            value, scale, zero_point, low, high, dtype = node.args
            if dtype == torch.uint8:
                node.args = (value, scale, zero_point - 128, low - 128, high - 128, torch.int8)
    graph.recompile()


def unfused(graph: fx.GraphModule) -> list[fx.Node]:
    """Return the dequantised weights of layers that no runtime computes in int8.

    A layer is computed in int8 where its output is quantised. The others are the last layers, and
    those that a float operation reads.

    Args:
        graph: The graph.
    """
    found = []
    for node in _weights(graph):
        reads = [_after_activation(user) for user in node.users]
        if not all(_is(u, "quantize_per_tensor") for layer in reads for u in layer.users):
            found.append(node)
    return found


def told(floats: int) -> tuple[str, ...]:
    """Return, for the card, how many layers have float weights; nothing if none has.

    Args:
        floats: Their number.

    Example:
        >>> told(1)
        ('1 layer with a float output has float weights, which are rounded to int8 values',)
    """
    if not floats:
        return ()
    subject = (
        "1 layer with a float output has"
        if floats == 1
        else (f"{floats} layers with a float output have")
    )
    return (f"{subject} float weights, which are rounded to int8 values",)


def fold(graph: fx.GraphModule, nodes: Sequence[fx.Node]) -> None:
    """Store weights as the float numbers that their int8 numbers stand for.

    Args:
        graph: The graph; it is changed.
        nodes: Nodes that dequantise a weight.
    """
    for node in nodes:
        with graph.graph.inserting_before(node):
            constant = _constant(graph, f"folded_{node.name}", _call(graph, node))
        node.replace_all_uses_with(constant)
        graph.graph.erase_node(node)
    _clean(graph)


def quantize_weights(graph: fx.GraphModule) -> None:
    """Let weights be quantised in the graph: float numbers that are rounded to their int8 numbers.

    Args:
        graph: The graph; it is changed.
    """
    for node in list(_weights(graph)):
        quantize = getattr(torch.ops.quantized_decomposed, _name(node).replace("de", "", 1)).default
        with graph.graph.inserting_before(node):
            constant = _constant(graph, f"float_{node.name}", _call(graph, node))
            node.update_arg(0, graph.graph.call_function(quantize, (constant, *node.args[1:])))
    _clean(graph)


def _weights(graph: fx.GraphModule) -> Iterator[fx.Node]:
    """Yield the nodes that dequantise a stored tensor."""
    for node in list(graph.graph.nodes):
        if _name(node) in ("dequantize_per_channel", "dequantize_per_tensor"):
            source = node.args[0]
            if isinstance(source, fx.Node) and source.op == "get_attr":
                yield node


def _after_activation(node: fx.Node) -> fx.Node:
    """Return the last of the operations that runtimes compute together with a layer."""
    while len(node.users) == 1 and _name(user := next(iter(node.users))) in ("relu", "hardtanh"):
        node = user
    return node


def _call(graph: fx.GraphModule, node: fx.Node) -> Tensor:
    """Return what a node computes from stored tensors."""

    def value(argument: Any) -> Any:
        return _stored(graph, argument) if isinstance(argument, fx.Node) else argument

    result: Tensor = node.target(*map(value, node.args), **node.kwargs)  # type: ignore[operator]
    return result


def _stored(graph: fx.GraphModule, node: fx.Node) -> Any:
    found: Any = graph
    for part in str(node.target).split("."):
        found = getattr(found, part)
    return found


def _constant(graph: fx.GraphModule, name: str, value: Tensor) -> fx.Node:
    graph.register_buffer(name, value.detach())
    return graph.graph.get_attr(name)


def _clean(graph: fx.GraphModule) -> None:
    graph.graph.eliminate_dead_code()
    graph.delete_all_unused_submodules()
    graph.recompile()


def _name(node: fx.Node) -> str:
    """Return the name of an operation without its namespace and overload."""
    return str(node.target).split(".")[-2] if "." in str(node.target) else ""


def _is(node: fx.Node, name: str) -> bool:
    return node.op == "call_function" and _name(node) == name
