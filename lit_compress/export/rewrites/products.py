"""Write products with a bias as linear layers, which runtimes have in int8."""

from __future__ import annotations

from typing import Any

import torch
from torch.export import ExportedProgram
from torch.fx import Node

aten = torch.ops.aten


def products_as_linear(program: ExportedProgram) -> int:
    """Replace each ``addmm``, as in GPT-2's layers, by a linear layer of the transposed weight.

    Args:
        program: The captured graph; changed in place.

    Returns:
        The number of products that were replaced.

    Example:
        >>> class Product(torch.nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.weight = torch.nn.Parameter(torch.ones(3, 2))
        ...         self.bias = torch.nn.Parameter(torch.zeros(2))
        ...     def forward(self, x):
        ...         return torch.addmm(self.bias, x, self.weight)
        >>> program = torch.export.export(Product().eval(), (torch.ones(4, 3),))
        >>> products_as_linear(program)
        1
    """
    graph = program.graph_module.graph
    found = [node for node in graph.nodes if node.target is aten.addmm.default and _is_plain(node)]
    for node in found:
        bias, left, right = node.args
        with graph.inserting_before(node):
            weight = graph.call_function(aten.t.default, (right,))
            weight.meta = {"val": right.meta["val"].t()}
            linear = graph.call_function(aten.linear.default, (left, weight, bias))
        linear.meta = dict(node.meta)
        node.replace_all_uses_with(linear)
        graph.erase_node(node)
    if found:
        program.graph_module.recompile()
    return len(found)


def _is_plain(node: Node) -> bool:
    """Tell whether a product has a bias for each column, and no factors."""
    bias: Any = node.args[0]
    scaled = any(node.kwargs.get(name, 1) != 1 for name in ("alpha", "beta"))
    value = bias.meta.get("val") if isinstance(bias, Node) else None
    return value is not None and value.dim() == 1 and not scaled
