"""Compute what depends on weights alone once, before the export.

A weight that a forward computes from others, such as that of a ``weight_norm``, a ``spectral_norm``
or another parametrization, is a constant after the training. As one it can be stored as int8.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch._ops import OpOverload
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, InputSpec, TensorArgument
from torch.fx import Node

aten = torch.ops.aten

#: Operations whose weights and biases are computed, and the names of these arguments.
LAYERS = {
    aten.conv1d.default,
    aten.conv1d.padding,
    aten.conv2d.default,
    aten.conv2d.padding,
    aten.conv3d.default,
    aten.conv3d.padding,
    aten.conv_transpose1d.default,
    aten.conv_transpose2d.input,
    aten.conv_transpose3d.input,
    aten.linear.default,
    aten.matmul.default,
}
ARGUMENTS = {1: "weight", 2: "bias"}


def fold_weights(program: ExportedProgram) -> int:
    """Replace the computed weights and biases of layers by constants.

    Args:
        program: The captured graph; changed in place.

    Returns:
        The number of weights and biases that were computed.

    Example:
        >>> from torch.nn.utils.parametrizations import weight_norm
        >>> network = weight_norm(nn.Linear(3, 2)).eval()
        >>> program = torch.export.export(network, (torch.zeros(1, 3),))
        >>> fold_weights(program), sorted(program.state_dict)
        (1, ['bias', 'weight'])
    """
    known = _known(program)
    folded = 0
    with torch.no_grad():
        for node in list(program.graph_module.graph.nodes):
            if node.target not in LAYERS:
                continue
            for position, name in ARGUMENTS.items():
                source = node.args[position] if position < len(node.args) else None
                if isinstance(source, Node) and source in known and source.op != "placeholder":
                    constant = _constant(program, _target(node, name), _value(source, known))
                    node.replace_input_with(source, constant)
                    constant.meta = {"val": source.meta["val"]}
                    folded += 1
    if folded:
        program.graph_module.graph.eliminate_dead_code()
        _drop_unused(program)
        program.graph_module.recompile()
    return folded


def _known(program: ExportedProgram) -> dict[Node, Any]:
    """Return the values that depend on weights alone; of operations, None until they are needed."""
    known: dict[Node, Any] = {}
    specs = {spec.arg.name: spec for spec in program.graph_signature.input_specs}
    stored = {**program.state_dict, **program.constants}
    for node in program.graph_module.graph.nodes:
        if node.op == "placeholder":
            target = specs[node.name].target
            if target is not None and isinstance(stored.get(target), Tensor):
                known[node] = stored[target]
        elif _is_plain(node):
            sources = node.all_input_nodes
            if sources and all(source in known for source in sources):
                known[node] = None
    return known


def _is_plain(node: Node) -> bool:
    """Tell whether a node is one of torch's own operations: dequantised weights stay int8."""
    target = node.target
    return isinstance(target, OpOverload) and target.namespace == "aten"


def _value(node: Node, known: dict[Node, Any]) -> Any:
    """Compute the value of a node, and of those before it."""
    if known[node] is None:
        for source in node.all_input_nodes:
            _value(source, known)
        args, kwargs = torch.fx.node.map_arg((node.args, node.kwargs), lambda source: known[source])
        operation: Any = node.target
        known[node] = operation(*args, **kwargs)
    return known[node]


def _target(layer: Node, name: str) -> str:
    """Return the name of a computed weight: that of its layer's module, and ``weight``."""
    stack = [entry[0] for entry in (layer.meta.get("nn_module_stack") or {}).values()]
    return f"{stack[-1]}.{name}" if stack and stack[-1] else name


def _constant(program: ExportedProgram, target: str, value: Tensor) -> Node:
    """Add a constant to a graph; an equal one with the same name is used again."""
    graph, signature = program.graph_module.graph, program.graph_signature
    placeholders: dict[str, Node] = {n.name: n for n in graph.nodes if n.op == "placeholder"}
    free, count = target, 1
    while free in program.state_dict:
        if torch.equal(program.state_dict[free], value):
            spec = next(s for s in signature.input_specs if s.target == free)
            return placeholders[spec.arg.name]
        count += 1
        free = f"{target}_{count}"
    with graph.inserting_before(next(iter(graph.nodes))):
        node: Node = graph.placeholder(f"p_{free.replace('.', '_')}")
    spec = InputSpec(InputKind.PARAMETER, TensorArgument(name=node.name), free)
    signature.input_specs.insert(0, spec)
    program.state_dict[free] = nn.Parameter(value.detach().clone(), requires_grad=False)
    return node


def _drop_unused(program: ExportedProgram) -> None:
    """Remove the weights that no node reads any more."""
    graph, signature = program.graph_module.graph, program.graph_signature
    unused = {n.name: n for n in graph.nodes if n.op == "placeholder" and not n.users}
    for spec in list(signature.input_specs):
        if spec.arg.name in unused and spec.kind is not InputKind.USER_INPUT:
            signature.input_specs.remove(spec)
            graph.erase_node(unused[spec.arg.name])
            if not any(other.target == spec.target for other in signature.input_specs):
                program.state_dict.pop(str(spec.target), None)
