"""Give the bounds of a clamp one type.

Of ``x.clamp(0, 6.0)`` torch's ONNX exporter makes the int a tensor, and then finds no operation
that takes a tensor and a number (seen in torch 2.14.1).
"""

from __future__ import annotations

from typing import Any

import torch
from torch.export import ExportedProgram

aten = torch.ops.aten
CLAMPS = {aten.clamp.default, aten.clamp_.default, aten.clip.default, aten.clip_.default}


def unify_bounds(program: ExportedProgram) -> None:
    """Make the numbers of clamps of floating-point tensors floating-point numbers.

    Args:
        program: The captured graph; changed in place.

    Example:
        >>> class Relu6(torch.nn.Module):
        ...     def forward(self, x):
        ...         return x.clamp(0, 6.0)
        >>> program = torch.export.export(Relu6(), (torch.zeros(1, 3),))
        >>> unify_bounds(program)
        >>> [node.args[1:] for node in program.graph.nodes if node.target in CLAMPS]
        [(0.0, 6.0)]
    """
    for node in program.graph_module.graph.nodes:
        if node.target in CLAMPS and node.args[0].meta["val"].is_floating_point():
            node.args = (node.args[0], *map(_as_float, node.args[1:]))
            node.kwargs = {name: _as_float(bound) for name, bound in node.kwargs.items()}
    program.graph_module.recompile()


def _as_float(bound: Any) -> Any:
    return float(bound) if isinstance(bound, int) else bound
