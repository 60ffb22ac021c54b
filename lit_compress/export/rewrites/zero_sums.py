"""Remove sums with zeros: what is left of a residual branch that was removed.

A runtime folds a zero that is a constant, and not one whose shape depends on the batch.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.fx import Node

aten = torch.ops.aten

#: Operations that make zeros, and those that make tensors of one value.
ZEROS = {aten.new_zeros.default, aten.zeros_like.default, aten.zeros.default}
FULL = {aten.full.default, aten.full_like.default, aten.new_full.default}
#: Operations that give zeros if their first argument is zero.
KEEP = {
    *(aten.view.default, aten.reshape.default, aten.permute.default, aten.transpose.int),
    *(aten.clone.default, aten.expand.default, aten.squeeze.dim, aten.unsqueeze.default),
    aten.div.Tensor,
}


def drop_zero_sums(program: ExportedProgram) -> int:
    """Remove sums with zeros from a captured graph.

    Args:
        program: The captured graph; changed in place. A sum that is an output of the graph is not
            removed.

    Returns:
        The number of removed sums.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from lit_compress.pruning.blocks.stand_in import StandIn
        >>> class Net(nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.branch, self.last = StandIn("zero"), nn.Linear(3, 2)
        ...     def forward(self, x):
        ...         return self.last(x + self.branch(x))
        >>> drop_zero_sums(torch.export.export(Net().eval(), (torch.zeros(1, 3),)))
        1
    """
    graph = program.graph_module.graph
    found = 0
    for node in list(graph.nodes):
        summand = _other_summand(node)
        if summand is None or any(user.op == "output" for user in node.users):
            continue
        node.replace_all_uses_with(summand)
        graph.erase_node(node)
        found += 1
    if found:
        graph.eliminate_dead_code()
        program.graph_module.recompile()
    return found


def _other_summand(node: Node) -> Node | None:
    """Return what a node adds zeros to, if it does, and the result is no wider than it."""
    if node.op != "call_function" or node.target is not aten.add.Tensor or node.kwargs:
        return None
    for summand, zeros in (node.args[:2], node.args[1::-1]):
        if _is_zero(zeros) and isinstance(summand, Node) and _like(summand) == _like(node):
            return summand
    return None


def _is_zero(node: Any) -> bool:
    """Tell whether a node is known to be nothing but zeros."""
    if not isinstance(node, Node) or node.op != "call_function":
        return False
    if node.target in ZEROS:
        return True
    if node.target in FULL:
        return node.args[-1] in (0, 0.0)
    if node.target is aten.mul.Tensor:
        return any(_is_zero(factor) for factor in node.args)
    return node.target in KEEP and _is_zero(node.args[0])


def _like(node: Node) -> tuple[Any, ...] | None:
    value = node.meta.get("val")
    return (value.dtype, *value.shape) if isinstance(value, Tensor) else None
