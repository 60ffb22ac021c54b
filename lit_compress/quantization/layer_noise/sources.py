"""The weights and activations of a graph that are quantised, by the layer that they belong to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from torch.fx import GraphModule, Node

from lit_compress.quantization.operations import MOVEMENTS

#: Number of elements to compute in total, which limits the number of inputs: about a minute.
BUDGET = 10**10
#: The name of a layer, and ``weight`` or ``activation``.
Source: TypeAlias = tuple[str, str]


def find_sources(prepared: GraphModule, owners: Mapping[str, str]) -> dict[Source, set[Node]]:
    """Return the observers of each weight and activation, in the order of the graph.

    Args:
        prepared: Graph with observers.
        owners: By name of a graph node, the name of its layer.
    """
    found: dict[Source, set[Node]] = {}
    for node in prepared.graph.nodes:
        if node.op == "call_module":
            found.setdefault(_source(node, owners), set()).add(node)
    return found


def is_weight(observer: Node) -> bool:
    """Tell whether an observer is that of a weight."""
    value = observer.args[0]
    return isinstance(value, Node) and value.op == "get_attr"


def observed(observer: Node) -> tuple[Node | None, list[Node]]:
    """Return the node that computed an activation, and the observers that it went through before.

    Args:
        observer: Observer of an activation.
    """
    value, before = observer.args[0], []
    while isinstance(value, Node) and (value.op == "call_module" or value.target in MOVEMENTS):
        if value.op == "call_module":
            before.append(value)
        value = value.args[0]
    return (value if isinstance(value, Node) else None), before


def _source(observer: Node, owners: Mapping[str, str]) -> Source:
    if is_weight(observer):
        user = next(iter(observer.users))
        return owners.get(user.name, user.name), "weight"
    value, _ = observed(observer)
    name = str(observer.args[0]) if value is None else value.name
    return owners.get(name, name), "activation"
