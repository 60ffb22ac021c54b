"""Remove idle means: averages over a single pixel, which change no value.

They occur where a small image has shrunk to one pixel. ONNX Runtime's int8 pool over one pixel
takes longer than the layer before it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.fx import Node

aten = torch.ops.aten

ADAPTIVE = {aten.adaptive_avg_pool1d.default, aten.adaptive_avg_pool2d.default}


def drop_idle_means(program: ExportedProgram) -> int:
    """Remove averages over a single value from a captured graph.

    Args:
        program: The captured graph; changed in place. An average that is an output of the graph is
            not removed.

    Returns:
        The number of removed averages.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        ...                     nn.Linear(4, 2)).eval()
        >>> program = torch.export.export(net, (torch.zeros(1, 1, 3, 3),))
        >>> drop_idle_means(program)
        1
    """
    graph = program.graph_module.graph
    idle = [node for node in graph.nodes if _is_idle(node)]
    for node in idle:
        with graph.inserting_before(node):
            copy = graph.call_function(aten.clone.default, (node.args[0],))
            copy.meta = dict(node.args[0].meta)
            if len(_shape(copy)) > len(_shape(node)):
                copy = graph.call_function(aten.squeeze.dims, (copy, node.args[1]))
        copy.meta = dict(node.meta)
        node.replace_all_uses_with(copy)
        graph.erase_node(node)
    program.graph_module.recompile()
    return len(idle)


def _is_idle(node: Node) -> bool:
    """Tell whether a node averages over single values and is no output of the graph."""
    if node.op != "call_function" or any(user.op == "output" for user in node.users):
        return False
    source: Any = node.args[0] if node.args else None
    if node.target in ADAPTIVE:
        return _shape(source)[1:] == _shape(node)[1:]
    if node.target is not aten.mean.dim or node.kwargs or len(node.args) > 3 or not node.args[1]:
        return False
    shape, dims = _shape(source), node.args[1]
    return isinstance(dims, (list, tuple)) and all(_is_one(shape[int(dim)]) for dim in dims)


def _is_one(size: Any) -> bool:
    return isinstance(size, int) and size == 1


def _shape(node: Any) -> list[Any]:
    """Return the shape of a node's value, or an empty list if it is no tensor."""
    value = node.meta.get("val") if isinstance(node, Node) else None
    return list(value.shape) if isinstance(value, Tensor) else []
