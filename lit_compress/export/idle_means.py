"""Averages over a single pixel, which change nothing and take their time.

Where a small image has shrunk to one pixel, ONNX Runtime's int8 pool over it takes longer than the
layer before it.
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
    """Take averages out of a captured graph that are of one value each.

    Args:
        program: The graph, changed in place. An average that is its output stays.

    Returns:
        How many were taken out.
    """
    graph = program.graph_module.graph
    idle = [node for node in graph.nodes if _is_idle(node)]
    for node in idle:
        with graph.inserting_before(node):
            same = graph.call_function(aten.clone.default, (node.args[0],))
            same.meta = dict(node.args[0].meta)
            if len(_shape(same)) > len(_shape(node)):
                same = graph.call_function(aten.squeeze.dims, (same, node.args[1]))
        same.meta = dict(node.meta)
        node.replace_all_uses_with(same)
        graph.erase_node(node)
    program.graph_module.recompile()
    return len(idle)


def _is_idle(node: Node) -> bool:
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
    value = node.meta.get("val") if isinstance(node, Node) else None
    return list(value.shape) if isinstance(value, Tensor) else []
