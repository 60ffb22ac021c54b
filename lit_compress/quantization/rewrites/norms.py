"""Batch norms that must not be folded into the layer before them.

torchao folds a batch norm into the convolution or linear layer that it follows, without asking
whether anything else takes that layer's output, or uses its weight.
"""

from __future__ import annotations

from torch.export import ExportedProgram
from torch.fx import Node

from lit_compress.quantization.operations import NORMS, WEIGHTED, aten


def keep_norms_apart(program: ExportedProgram) -> int:
    """Part norms from layers whose outputs or weights have other uses, by a copy in between.

    Args:
        program: The graph, changed in place.

    Returns:
        How many were parted.
    """
    graph = program.graph_module.graph
    apart = [n for n in graph.nodes if n.target in NORMS and not _may_be_folded(n)]
    for norm in apart:
        with graph.inserting_before(norm):
            copied = graph.call_function(aten.clone.default, (norm.args[0],))
        copied.meta = dict(norm.args[0].meta)
        norm.replace_input_with(norm.args[0], copied)
    program.graph_module.recompile()
    return len(apart)


def _may_be_folded(norm: Node) -> bool:
    """Tell whether the layer before a norm, if it has a weight, is only used with that norm."""
    layer = norm.args[0]
    if not isinstance(layer, Node) or layer.target not in WEIGHTED:
        return True
    shared = [
        user for source in layer.args[1:3] if isinstance(source, Node) for user in source.users
    ]
    return all(_is_followed_by(user, norm) for user in (layer, *shared))


def _is_followed_by(layer: Node, norm: Node) -> bool:
    users = list(layer.users)
    return len(users) == 1 and users[0].target in NORMS and users[0].args[1:5] == norm.args[1:5]
