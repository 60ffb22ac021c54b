"""Which layer hurts: the outputs with one weight, or one activation, quantised alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.fx import GraphModule, Interpreter, Node
from torch.utils._pytree import tree_leaves

from lit_compress.artifact.fidelity import CEILING_DB, sqnr_db
from lit_compress.export.signature import Batch, as_tuple, first_rows
from lit_compress.quantization.observers import faked
from lit_compress.quantization.operations import MOVEMENTS

#: Inputs that are always run, and elements of activations to compute in all.
LEAST, BUDGET = 2, 10**10


@dataclass(frozen=True)
class LayerNoise:
    """What quantising one layer alone does to the network's outputs.

    Attributes:
        name: The layer, an input, or a float operation whose output a layer takes quantised.
        weight_db: SQNR of the outputs with its weight quantised; None if it has none.
        activation_db: With its output quantised; None if that stays float.
    """

    name: str
    weight_db: float | None
    activation_db: float | None

    @property
    def worst_db(self) -> float:
        """The lower of the two."""
        return min(CEILING_DB if db is None else db for db in (self.weight_db, self.activation_db))

    @property
    def fault(self) -> Literal["weight", "activation"]:
        """Which of the two it is."""
        return "weight" if self.weight_db == self.worst_db else "activation"


def layer_noise(
    prepared: GraphModule,
    owners: Mapping[str, str],
    inputs: Batch,
) -> tuple[LayerNoise, ...]:
    """Return the noise that each layer of a calibrated graph makes, in the order of the graph.

    Each is measured with all others in float: the part of the graph before it is not run again.
    What biases make up for in the converted graph is counted.
    Large networks are measured on fewer inputs, two at least, so that it takes about a minute.

    Args:
        prepared: Graph with calibrated observers in it.
        owners: For each node, by name, the layer it belongs to.
        inputs: What to run.
    """
    sources: dict[tuple[str, str], set[Node]] = {}
    for node in prepared.graph.nodes:
        if node.op == "call_module":
            sources.setdefault(_source(node, owners), set()).add(node)
    run = _Quantizing(prepared)
    with torch.no_grad():
        _, few = run.floats(first_rows([as_tuple(inputs)], LEAST))
        elements = sum(
            leaf.numel() for leaf in tree_leaves(list(few.values())) if isinstance(leaf, Tensor)
        )
        rows = max(LEAST, LEAST * BUDGET // (elements * max(1, len(sources))))
        expected, before = run.floats(first_rows([as_tuple(inputs)], rows))
        found = {
            (name, kind): sqnr_db(expected, run.quantized(nodes, before))
            for (name, kind), nodes in sources.items()
        }
    measured = {name for name, _ in found}
    names = dict.fromkeys(name for name in owners.values() if name in measured)
    return tuple(
        LayerNoise(name, found.get((name, "weight")), found.get((name, "activation")))
        for name in names
    )


class _Quantizing(Interpreter):
    """Runs a calibrated graph in float, but for some observers, which quantise."""

    def __init__(self, graph: GraphModule) -> None:
        super().__init__(graph, garbage_collect_values=False)
        self._active: set[Node] = set()
        self._order = {node: index for index, node in enumerate(graph.graph.nodes)}
        self._modules = dict(graph.named_modules(remove_duplicate=False))

    def floats(self, inputs: tuple[Tensor, ...]) -> tuple[Any, dict[Node, Any]]:
        """Return the float outputs, and what every node gave."""
        self._active = set()
        outputs = self.run(*inputs)
        return _array(outputs), dict(self.env)

    def quantized(self, nodes: set[Node], before: dict[Node, Any]) -> Any:
        """Return the outputs with these observers quantising, from the first of them on."""
        self._active = nodes
        first = min(self._order[node] for node in nodes)
        known = {
            node: value
            for node, value in before.items()
            if self._order[node] < first or node.op == "placeholder"
        }
        return _array(self.run(initial_env=known))

    def run_node(self, n: Node) -> Any:
        """Run one node; an observer gives what it got, quantised or not."""
        if n.op != "call_module":
            return super().run_node(n)
        value = self.env[n.args[0]]  # type: ignore[index]
        return faked(self._modules[str(n.target)], value) if n in self._active else value


def _source(observer: Node, owners: Mapping[str, str]) -> tuple[str, str]:
    value = observer.args[0]
    if isinstance(value, Node) and value.op == "get_attr":
        user = next(iter(observer.users))
        return owners.get(user.name, user.name), "weight"
    while isinstance(value, Node) and (value.op == "call_module" or value.target in MOVEMENTS):
        value = value.args[0]
    name = value.name if isinstance(value, Node) else str(value)
    return owners.get(name, name), "activation"


def _array(outputs: Any) -> Any:
    result = outputs[0] if isinstance(outputs, (tuple, list)) else outputs
    return result.numpy()
