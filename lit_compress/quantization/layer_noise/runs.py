"""Measure the noise of each layer by a run of the rest of the graph for each of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.fx import GraphModule, Interpreter, Node
from torch.utils._pytree import tree_leaves

from lit_compress.artifact.fidelity import sqnr_db
from lit_compress.export.outputs import as_tensors
from lit_compress.export.signature import first_rows
from lit_compress.quantization.calibrate import Track
from lit_compress.quantization.layer_noise import sources as limits
from lit_compress.quantization.layer_noise.sources import Source
from lit_compress.quantization.observers import fake_quantize

Arrays = list[np.ndarray]
#: Smallest number of inputs to measure with.
MIN_INPUTS = 2


def noise_by_runs(
    prepared: GraphModule,
    sources: Mapping[Source, set[Node]],
    inputs: tuple[Tensor, ...],
    track: Track,
) -> dict[Source, float]:
    """Return the lowest SQNR of the outputs in dB if a single weight or activation is quantised.

    The time grows with the square of the number of layers. Large networks are measured with fewer
    inputs, at least 2.

    Args:
        prepared: Graph with calibrated observers.
        sources: The observers of each weight and activation.
        inputs: Inputs to measure with.
        track: Shows how far it is.
    """
    runner = _SelectiveQuantization(prepared)
    with torch.no_grad():
        rows = _affordable_rows(runner, inputs, len(sources))
        expected, values = runner.float_run(first_rows([inputs], rows))
        return {
            source: _worst_db(expected, runner.quantized_run(sources[source], values))
            for source in track(list(sources), "noise of each layer")
        }


def _affordable_rows(runner: _SelectiveQuantization, inputs: tuple[Tensor, ...], runs: int) -> int:
    """Return the number of inputs with which the given number of runs stays within the budget."""
    _, values = runner.float_run(first_rows([inputs], MIN_INPUTS))
    elements = sum(
        leaf.numel() for leaf in tree_leaves(list(values.values())) if isinstance(leaf, Tensor)
    )
    return max(MIN_INPUTS, MIN_INPUTS * limits.BUDGET // (elements * max(1, runs)))


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


def _arrays(outputs: Any) -> Arrays:
    """Return the outputs of a graph as numpy arrays."""
    return [tensor.numpy() for tensor in as_tensors(outputs)]


def _worst_db(expected: Arrays, found: Arrays) -> float:
    """Return the lowest SQNR of several outputs in dB."""
    return min(sqnr_db(one, other) for one, other in zip(expected, found, strict=True))
