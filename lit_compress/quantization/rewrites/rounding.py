"""Rounding weights so that the outputs of a layer change least, instead of each to its nearest.

Weights of one output are rounded one after the other, and what rounding one of them changes in the
outputs is made up for by those that follow, on the inputs that calibration saw: the aim of AdaRound
(Nagel et al. 2020, arXiv 2004.10568), reached in closed form as in OBQ and GPTQ (Frantar et al.
2022, arXiv 2208.11580 and 2210.17323). No labels are needed. A layer keeps the nearest numbers
where, on other inputs than those it was fitted to, they are better.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Interpreter, Node

from lit_compress.export.signature import Batch, as_tuple, first_rows
from lit_compress.quantization.observers import fake_quantize
from lit_compress.quantization.operations import aten, is_parameter
from lit_compress.quantization.rewrites.biases import with_own_bias
from lit_compress.quantization.rewrites.judge import Judge, is_better
from lit_compress.quantization.rewrites.layer_inputs import LayerInputs, argument, rows_of

#: Layers whose inputs can be written as rows, each of which gives one number of each output.
ROWS = {
    aten.linear.default,
    aten.conv1d.default,
    aten.conv2d.default,
    aten.conv1d.padding,
    aten.conv2d.padding,
}
#: Most inputs of one output: a matrix of their products must be inverted.
MOST_INPUTS = 5000
#: Inputs on which the network is judged.
JUDGED = 1024


def learn_rounding(prepared: GraphModule, batches: Sequence[Batch]) -> dict[str, Tensor]:
    """Return weights that are rounded so that the outputs of their layers change least.

    A layer is taken only if the outputs of the whole quantised network are nearer to those of the
    float network with it, on inputs that it was not fitted to where there are four batches or more.

    Args:
        prepared: Graph with calibrated observers; it is not changed.
        batches: Inputs of the network. Three of four are fitted to, the others judge.

    Returns:
        By name of a weight, its rounded value, where that is better than the nearest numbers.
    """
    every = [as_tuple(batch) for batch in batches]
    judging = every[3::4] or every
    fitted = [one for index, one in enumerate(every) if index % 4 != 3]
    layers = _layers(prepared)
    products = _Products(prepared, layers)
    with torch.no_grad():
        for batch in fitted:
            products.run(*batch)
        judge = Judge(prepared, first_rows(judging, JUDGED))
        current: dict[str, Tensor] = {}
        for node, layer in layers.items():
            current |= layer.tensors(layer.nearest, products.of[node])
        best = judge.errors(current)
        found: dict[str, Tensor] = {}
        for node, layer in layers.items():
            rounded = layer.rounded(products.of[node])
            tried = current | layer.tensors(rounded, products.of[node])
            if is_better(errors := judge.errors(tried), best):
                current, best = tried, errors
                found[layer.name] = rounded
    return found


def set_weights(prepared: GraphModule, weights: Mapping[str, Tensor]) -> None:
    """Give a graph other weights.

    Args:
        prepared: The graph; tensors that it shares with another are replaced, not changed.
        weights: By name.
    """
    for name, weight in weights.items():
        prefix, _, attribute = name.rpartition(".")
        setattr(prepared.get_submodule(prefix), attribute, nn.Parameter(weight, False))


@dataclass(frozen=True)
class _Layer:
    """A layer with a weight that is rounded.

    Attributes:
        name: Name of its weight.
        weight: Its weight; the outputs are along the first axis.
        nearest: Its weight, rounded to the nearest numbers.
        scale: The step of each output.
        largest: The largest number.
        groups: Number of its groups.
        input: The observer of its input.
        bias: Name and value of a bias of its own, which is corrected; None if it has none.
    """

    name: str
    weight: Tensor
    nearest: Tensor
    scale: Tensor
    largest: int
    groups: int
    input: Any
    bias: tuple[str, Tensor] | None

    def rounded(self, seen: LayerInputs) -> Tensor:
        """Return the weight, rounded for some inputs.

        Args:
            seen: What the inputs were like.
        """
        rows = self._rows(self.weight)
        scale = self.scale.reshape(self.groups, -1).double()
        factor = seen.inverse_factor(centred=self.bias is not None)
        found = torch.empty_like(rows)
        for column in range(rows.shape[-1]):
            steps = (rows[..., column] / scale).round().clamp(-self.largest, self.largest)
            found[..., column] = steps * scale
            error = (rows[..., column] - found[..., column]) / factor[:, column, column, None]
            rows -= error[..., None] * factor[:, None, column]
        return found.reshape(self.weight.shape).to(self.weight.dtype)

    def tensors(self, rounded: Tensor, seen: LayerInputs) -> dict[str, Tensor]:
        """Return a rounded weight, and the bias that goes with it, by name."""
        if self.bias is None:
            return {self.name: rounded}
        quantized, exact = seen.means
        shift = torch.einsum("goi,gi->go", self._rows(rounded), quantized)
        shift -= torch.einsum("goi,gi->go", self._rows(self.weight), exact)
        name, value = self.bias
        return {self.name: rounded, name: value - shift.flatten().to(value.dtype)}

    def _rows(self, weight: Tensor) -> Tensor:
        """Return a weight as a matrix for each group, of shape (group, output, input)."""
        return weight.reshape(self.groups, -1, weight[0].numel()).double()


class _Products(Interpreter):
    """Runs that add up the products of each layer's inputs, as they are when quantised."""

    def __init__(self, prepared: GraphModule, layers: Mapping[Node, _Layer]) -> None:
        super().__init__(prepared)
        self.extra_traceback = False
        self._layers = layers
        self.of = {node: LayerInputs() for node in layers}

    def run_node(self, n: Node) -> Any:
        """Run one node; an observer gives what it got."""
        if n.op == "call_module":
            return self.env[n.args[0]]  # type: ignore[index]
        if n in self._layers:
            layer = self._layers[n]
            (image, weight, *_), _ = self.fetch_args_kwargs_from_env(n)
            quantized = rows_of(n, fake_quantize(layer.input, image), weight, layer.groups)
            self.of[n].add(quantized, rows_of(n, image, weight, layer.groups))
        return super().run_node(n)


def _layers(prepared: GraphModule) -> dict[Node, _Layer]:
    """Return the quantised layers whose weights can be rounded so, by node."""
    weights = [node.args[1] for node in prepared.graph.nodes if node.target in ROWS]
    own = {node.name for node in with_own_bias(prepared)}
    found = {}
    for node in prepared.graph.nodes:
        if node.target not in ROWS or weights.count(node.args[1]) > 1:
            continue
        image, source = node.args[:2]
        if image.op != "call_module" or source.op != "call_module":
            continue
        if not is_parameter(source.args[0]) or len(source.args[0].users) > 1:
            continue
        weight = attrgetter(str(source.args[0].target))(prepared).detach()
        observer: Any = prepared.get_submodule(str(source.target))
        if weight[0].numel() <= MOST_INPUTS:
            found[node] = _Layer(
                str(source.args[0].target),
                weight,
                fake_quantize(observer, weight),
                observer.calculate_qparams()[0],
                observer.quant_max,
                argument(node, 6, 1) if node.target is not aten.linear.default else 1,
                prepared.get_submodule(str(image.target)),
                _bias(prepared, node) if node.name in own else None,
            )
    return found


def _bias(prepared: GraphModule, layer: Node) -> tuple[str, Tensor]:
    source: Any = layer.args[2]
    return str(source.target), attrgetter(str(source.target))(prepared).detach()
