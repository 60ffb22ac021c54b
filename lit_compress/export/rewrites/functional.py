"""Replace operations that write in place, so that every value of a graph is written once.

A quantise/dequantise pair behind a value makes a copy of it. A later write into the value, or into
a view of it as in ``x[:, :8] = 0``, then misses the readers of the copy
(https://github.com/pytorch/ao/issues/4138).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind
from torch.fx import Graph, Node

from lit_compress.errors import ExportError

aten = torch.ops.aten


def make_functional(program: ExportedProgram) -> ExportedProgram:
    """Return a captured graph that computes the same without writing in place.

    Args:
        program: The captured graph; it may be changed.

    Raises:
        ExportError: If the graph writes to a buffer of the network and computes with it: a file has
            no memory between calls.

    Example:
        >>> from torch import nn
        >>> program = torch.export.export(nn.ReLU(inplace=True).eval(), (torch.zeros(1, 3),))
        >>> [str(node.target) for node in make_functional(program).graph.nodes][-2]
        'aten.relu.default'
    """
    graph = program.graph_module.graph
    written = [node for node in graph.nodes if _written(node) is not None]
    if not written:
        return program
    _copy_written_inputs(program, _Aliases(graph), written)
    if _is_plain(_Aliases(graph), written):
        for node in written:
            node.target = _twin(node)
        program.graph_module.recompile()
        return program
    program.graph_module.recompile()
    program = program.run_decompositions({})
    _restore_norms(program)
    return program


class _Aliases:
    """Which values of a graph may share memory: those that are views of one another.

    Args:
        graph: The graph.
    """

    def __init__(self, graph: Graph) -> None:
        self.order = {node: index for index, node in enumerate(graph.nodes)}
        self._roots: dict[Node, Node] = {}
        for node in graph.nodes:
            if _may_be_view(node):
                source = next((n for n in node.all_input_nodes), None)
                if source is not None:
                    self._roots[node] = self.root(source)

    def root(self, node: Node) -> Node:
        """Return the first of the values that share memory with this one."""
        return self._roots.get(node, node)

    def read_after(self, write: Node) -> bool:
        """Tell whether a value that existed before a write is read after it."""
        target, at = _written(write), self.order[write]
        if target is None:
            return False
        root = self.root(target)
        return any(
            self.order[user] > at
            for node in self.order
            if self.root(node) is root and self.order[node] < at
            for user in node.users
        )


def _written(node: Node) -> Node | None:
    """Return the value that a node writes to; None if it writes to none."""
    if node.op != "call_function" or not isinstance(node.target, OpOverload):
        return None
    for index, argument in enumerate(node.target._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            value = node.args[index] if index < len(node.args) else node.kwargs.get(argument.name)
            return value if isinstance(value, Node) else None
    return None


def _may_be_view(node: Node) -> bool:
    if node.op != "call_function":
        return False
    if not isinstance(node.target, OpOverload):
        return getattr(node.target, "__name__", "") == "getitem"
    aliased = any(result.alias_info is not None for result in node.target._schema.returns)
    return aliased or torch.Tag.maybe_aliasing_or_mutating in node.target.tags


def _copy_written_inputs(program: ExportedProgram, aliases: _Aliases, written: list[Node]) -> None:
    """Copy each input and buffer that the graph writes to before its first use."""
    kinds = {spec.arg.name: spec for spec in program.graph_signature.input_specs}
    graph = program.graph_module.graph
    first = next(node for node in graph.nodes if node.op != "placeholder")
    roots = dict.fromkeys(aliases.root(node) for node in written)
    for source in [root for root in roots if root.op == "placeholder"]:
        spec = kinds[source.name]
        stores = [node for node in written if aliases.root(node) is source]
        if spec.kind is not InputKind.USER_INPUT and _reach_output(stores, aliases):
            raise ExportError(
                f"the forward writes to {spec.target} in eval mode and computes with it, but an "
                "exported file has no memory between calls: write to a new tensor instead, or name "
                "a part without it by submodule"
            )
        with graph.inserting_before(first):
            copy = graph.call_function(aten.clone.default, (source,))
        copy.meta = dict(source.meta)
        for user in [user for user in source.users if user is not copy]:
            user.replace_input_with(source, copy)


def _reach_output(stores: list[Node], aliases: _Aliases) -> bool:
    """Tell whether an output depends on what was written."""
    start = min(aliases.order[node] for node in stores)
    reached = set(stores)
    roots = {aliases.root(node) for node in stores}
    for node in aliases.order:
        late = aliases.order[node] > start
        if late and any(n in reached or aliases.root(n) in roots for n in node.all_input_nodes):
            if node.op == "output":
                return True
            reached.add(node)
    return False


def _is_plain(aliases: _Aliases, written: list[Node]) -> bool:
    """Tell whether each write has a twin, and only the result of the write is read after it."""
    return all(
        _twin(node) is not None and _keeps_type(node) and not aliases.read_after(node)
        for node in written
    )


def _twin(node: Node) -> Any:
    """Return the operation that computes the same without writing in place."""
    operation: Any = node.target
    namespace, _, name = operation._schema.name.partition("::")
    packet = getattr(getattr(torch.ops, namespace), name.removesuffix("_"), None)
    twin = getattr(packet, operation._overloadname, None)
    return twin if name.endswith("_") and twin is not None else None


def _keeps_type(node: Node) -> bool:
    """Tell whether no operand has another type, which could change that of the result."""
    values = [source.meta.get("val") for source in node.all_input_nodes]
    return len({value.dtype for value in values if isinstance(value, Tensor) and value.dim()}) < 2


def _restore_norms(program: ExportedProgram) -> None:
    """Write batch norms as one operation again, which is folded into the layer before."""
    graph = program.graph_module.graph
    for node in list(graph.nodes):
        if node.target is not aten._native_batch_norm_legit_no_training.default:
            continue
        users = list(node.users)
        if any(user.args[1] != 0 for user in users):
            continue
        *tensors, momentum, eps = node.args
        with graph.inserting_before(node):
            arguments = (*tensors, False, momentum, eps, False)
            norm = graph.call_function(aten.batch_norm.default, arguments)
        for user in users:
            norm.meta = dict(user.meta)
            user.replace_all_uses_with(norm)
            graph.erase_node(user)
        graph.erase_node(node)
    program.graph_module.recompile()
