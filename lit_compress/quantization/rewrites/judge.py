"""Whether a quantised network is nearer to the float one with other rounded weights."""

from __future__ import annotations

from collections.abc import Mapping
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Interpreter, Node

from lit_compress.export.outputs import as_tensors
from lit_compress.quantization.observers import fake_quantize
from lit_compress.quantization.operations import is_parameter
from lit_compress.quantization.training.rounding import round_activation

#: Standard errors by which the error of an input must fall on average: less may be chance.
SURE = 3.0
#: Errors below this are none.
LEAST = 1e-30


class Judge(Interpreter):
    """Runs a quantised graph with other weights, and compares it with the float one.

    Args:
        prepared: Graph with calibrated observers.
        inputs: What it is run on.
    """

    def __init__(self, prepared: GraphModule, inputs: tuple[Tensor, ...]) -> None:
        super().__init__(prepared)
        self.extra_traceback = False
        self._inputs = inputs
        self._tensors: Mapping[str, Tensor] | None = None
        self._ranges: dict[Node, tuple[float, int]] = {}
        self._nearest: dict[Node, Tensor] = {}
        for node in prepared.graph.nodes:
            if node.op == "call_module" and is_parameter(node.args[0]):
                observer = prepared.get_submodule(str(node.target))
                weight = attrgetter(str(node.args[0].target))(prepared)
                self._nearest[node] = fake_quantize(observer, weight.detach())
            elif node.op == "call_module":
                activation: Any = prepared.get_submodule(str(node.target))
                scale, zero = activation.calculate_qparams()
                self._ranges[node] = float(scale), int(zero)
        self._float = [tensor.double() for tensor in as_tensors(self.run(*inputs))]

    def errors(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """Return the error of the outputs for each input: the square, as a share of the outputs'.

        Args:
            tensors: By name, rounded weights and biases; other weights have the nearest numbers.
        """
        self._tensors = tensors
        found = as_tensors(self.run(*self._inputs))
        errors = []
        for one, other in zip(self._float, found, strict=True):
            change = (one - other).square()
            rows = change.reshape(len(change), -1) if change.dim() else change.reshape(1, 1)
            errors.append(rows.sum(1) / one.square().sum().clamp(min=LEAST))
        same = len({len(rows) for rows in errors}) == 1
        return torch.stack(errors).sum(0) if same else torch.cat(errors)

    def run_node(self, n: Node) -> Any:
        """Run one node; an observer quantises, but in the float run."""
        tensors = self._tensors
        if tensors is not None and n.op == "get_attr" and str(n.target) in tensors:
            return tensors[str(n.target)]
        if n.op != "call_module":
            return super().run_node(n)
        source: Any = n.args[0]
        value = self.env[source]
        if tensors is None or (n in self._nearest and str(source.target) in tensors):
            return value
        if n in self._nearest:
            return self._nearest[n]
        return round_activation(value, *self._ranges[n])


def is_better(errors: Tensor, than: Tensor) -> bool:
    """Tell whether the errors of inputs are smaller: their sum, and each on average."""
    if not bool(errors.sum() < than.sum()):
        return False
    change = torch.log(errors.clamp(min=LEAST) / than.clamp(min=LEAST))
    if len(change) < 2:
        return True
    return bool(change.mean() < -SURE * change.std() / len(change) ** 0.5)
