"""Measure the error that each layer alone causes: quantise one weight or activation at a time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.fx import GraphModule, Interpreter, Node
from torch.utils._pytree import tree_leaves

from lit_compress.artifact.fidelity import CEILING_DB, sqnr_db
from lit_compress.export.outputs import as_tensors
from lit_compress.export.signature import Batch, as_tuple, first_rows
from lit_compress.quantization.calibrate import Track, untracked
from lit_compress.quantization.observers import fake_quantize
from lit_compress.quantization.operations import MOVEMENTS

Arrays = list[np.ndarray]
#: Smallest number of inputs to measure with.
MIN_INPUTS = 2
#: Number of activation elements to compute in total, which limits the number of inputs.
BUDGET = 10**10


@dataclass(frozen=True)
class LayerNoise:
    """Error of the network's outputs if a single layer is quantised and all others stay float.

    The error is the signal to quantisation noise ratio (SQNR) in dB, see
    :func:`lit_compress.artifact.sqnr_db`; higher is better.

    Attributes:
        name: Name of the layer, of an input, or of a float operation whose output is quantised
            because a layer reads it.
        weight_db: SQNR with the weight of the layer quantised; None if it has no weight.
        activation_db: SQNR with the output of the layer quantised; None if the output stays float.

    Example:
        >>> noise = LayerNoise("features.0", weight_db=41.2, activation_db=33.0)
        >>> noise.worst_db, noise.fault
        (33.0, 'activation')
    """

    name: str
    weight_db: float | None
    activation_db: float | None

    @property
    def worst_db(self) -> float:
        """The lower one of ``weight_db`` and ``activation_db``."""
        return min(CEILING_DB if db is None else db for db in (self.weight_db, self.activation_db))

    @property
    def fault(self) -> Literal["weight", "activation"]:
        """Which one is lower: ``weight`` or ``activation``."""
        return "weight" if self.weight_db == self.worst_db else "activation"


def layer_noise(
    prepared: GraphModule,
    owners: Mapping[str, str],
    inputs: Batch,
    track: Track = untracked,
) -> tuple[LayerNoise, ...]:
    """Measure the error of the outputs if a single layer is quantised, for each layer of a graph.

    For each layer, only the part of the graph behind it is run again. The measured error includes
    the mean shift that bias correction removes from the converted graph. Large networks are
    measured with fewer inputs, at least 2, so that it takes about a minute.

    Args:
        prepared: Graph with calibrated observers.
        owners: By name of a graph node, the name of its layer.
        inputs: Inputs to measure with.
        track: Shows how far it is. Default: nothing does.

    Returns:
        One entry per layer, input or float operation, in the order of the graph.
    """
    observers: dict[tuple[str, str], set[Node]] = {}
    for node in prepared.graph.nodes:
        if node.op == "call_module":
            observers.setdefault(_observed(node, owners), set()).add(node)
    runner = _SelectiveQuantization(prepared)
    with torch.no_grad():
        rows = _affordable_rows(runner, as_tuple(inputs), len(observers))
        expected, values = runner.float_run(first_rows([as_tuple(inputs)], rows))
        sqnr = {
            key: worst_db(expected, runner.quantized_run(observers[key], values))
            for key in track(list(observers), "noise of each layer")
        }
    measured = {name for name, _ in sqnr}
    names = dict.fromkeys(name for name in owners.values() if name in measured)
    return tuple(
        LayerNoise(name, sqnr.get((name, "weight")), sqnr.get((name, "activation")))
        for name in names
    )


def _affordable_rows(runner: _SelectiveQuantization, inputs: tuple[Tensor, ...], runs: int) -> int:
    """Return the number of inputs with which the given number of runs stays within ``BUDGET``."""
    _, values = runner.float_run(first_rows([inputs], MIN_INPUTS))
    elements = sum(
        leaf.numel() for leaf in tree_leaves(list(values.values())) if isinstance(leaf, Tensor)
    )
    return max(MIN_INPUTS, MIN_INPUTS * BUDGET // (elements * max(1, runs)))


class _SelectiveQuantization(Interpreter):
    """Runs a calibrated graph in which only some observers quantise; all others pass values on."""

    def __init__(self, graph: GraphModule) -> None:
        super().__init__(graph, garbage_collect_values=False)
        self._active: set[Node] = set()
        self._order = {node: index for index, node in enumerate(graph.graph.nodes)}
        self._modules = dict(graph.named_modules(remove_duplicate=False))

    def float_run(self, inputs: tuple[Tensor, ...]) -> tuple[Arrays, dict[Node, Any]]:
        """Return the float outputs and the value of every node."""
        self._active = set()
        outputs = self.run(*inputs)
        return _arrays(outputs), dict(self.env)

    def quantized_run(self, nodes: set[Node], values: dict[Node, Any]) -> Arrays:
        """Return the outputs if these observers quantise.

        Args:
            nodes: The observers that quantise.
            values: Values of the float run; only nodes from the first observer on are run again.
        """
        self._active = nodes
        first = min(self._order[node] for node in nodes)
        known = {
            node: value
            for node, value in values.items()
            if self._order[node] < first or node.op == "placeholder"
        }
        return _arrays(self.run(initial_env=known))

    def run_node(self, n: Node) -> Any:
        """Run one node; an observer returns its input, quantised if it is active."""
        if n.op != "call_module":
            return super().run_node(n)
        value = self.env[n.args[0]]  # type: ignore[index]
        return fake_quantize(self._modules[str(n.target)], value) if n in self._active else value


def _observed(observer: Node, owners: Mapping[str, str]) -> tuple[str, str]:
    """Return the layer that an observer belongs to, and ``weight`` or ``activation``."""
    value = observer.args[0]
    if isinstance(value, Node) and value.op == "get_attr":
        user = next(iter(observer.users))
        return owners.get(user.name, user.name), "weight"
    while isinstance(value, Node) and (value.op == "call_module" or value.target in MOVEMENTS):
        value = value.args[0]
    name = value.name if isinstance(value, Node) else str(value)
    return owners.get(name, name), "activation"


def _arrays(outputs: Any) -> Arrays:
    """Return the outputs of a graph as numpy arrays."""
    return [tensor.numpy() for tensor in as_tensors(outputs)]


def worst_db(expected: Arrays, found: Arrays) -> float:
    """Return the lowest SQNR of several outputs in dB.

    Args:
        expected: The outputs in float.
        found: The same outputs with quantised values.
    """
    return min(sqnr_db(one, other) for one, other in zip(expected, found, strict=True))
