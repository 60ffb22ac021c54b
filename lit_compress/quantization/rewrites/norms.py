"""Prevent torchao from folding a batch norm into a layer where it goes wrong.

torchao folds a batch norm into the convolution or linear layer before it, even if the output or the
weight of that layer is used elsewhere, which then gives wrong results
(https://github.com/pytorch/ao/pull/2795 is the case of a shared weight). Of a transposed
convolution it takes the second axis of the weight for the channels, which with groups are fewer.
"""

from __future__ import annotations

from torch.export import ExportedProgram
from torch.fx import Node

from lit_compress.quantization.operations import NORMS, WEIGHTED, aten

TRANSPOSED = {aten.conv_transpose1d.default, aten.conv_transpose2d.input}
#: Position of a transposed convolution's number of groups among its arguments.
GROUPS = 6


def block_norm_folding(program: ExportedProgram) -> int:
    """Insert a copy between a norm and its layer where the norm must not be folded.

    torchao does not fold a norm behind a copy.

    Args:
        program: The captured graph; changed in place.

    Returns:
        The number of inserted copies.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> class Net(nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.conv, self.norm = nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2)
        ...     def forward(self, x):
        ...         x = self.conv(x)
        ...         return x + self.norm(x)
        >>> program = torch.export.export(Net().eval(), (torch.zeros(1, 1, 4, 4),))
        >>> block_norm_folding(program)
        1
    """
    graph = program.graph_module.graph
    norms = [n for n in graph.nodes if n.target in NORMS and not _may_be_folded(n)]
    for norm in norms:
        with graph.inserting_before(norm):
            copy = graph.call_function(aten.clone.default, (norm.args[0],))
        copy.meta = dict(norm.args[0].meta)
        norm.replace_input_with(norm.args[0], copy)
    program.graph_module.recompile()
    return len(norms)


def _may_be_folded(norm: Node) -> bool:
    """Tell whether a norm follows no layer with a weight, or a layer that is used only with it.

    Grouped transposed convolutions are not folded.
    """
    layer = norm.args[0]
    if not isinstance(layer, Node) or layer.target not in WEIGHTED:
        return True
    if layer.target in TRANSPOSED and len(layer.args) > GROUPS and layer.args[GROUPS] != 1:
        return False
    shared = [
        user for source in layer.args[1:3] if isinstance(source, Node) for user in source.users
    ]
    return all(_is_followed_by(user, norm) for user in (layer, *shared))


def _is_followed_by(layer: Node, norm: Node) -> bool:
    """Tell whether the only user of a layer is a norm with the same tensors as ``norm``."""
    users = list(layer.users)
    return len(users) == 1 and users[0].target in NORMS and users[0].args[1:5] == norm.args[1:5]
