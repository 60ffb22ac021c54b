"""Biases that make up for what quantising does to every image alike.

Rounding a layer's weight and input shifts the means of its outputs. The shift is measured on the
calibration batches and taken off the bias (Nagel et al. 2019, arXiv 1906.04721, section 4.2), each
layer by itself: what the layers before it do is theirs to make up for.

ONNX Runtime adds a bias to int32 sums, whose step is the input's scale times the channel's weight
scale, and rounds it to that. Where weights are large and inputs small, a step can be larger than
one of the output. A weight scale that is a little larger makes the bias a whole number of steps.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Interpreter, Node

from lit_compress.quantization.calibrate import Batch, as_tuple
from lit_compress.quantization.observers import faked
from lit_compress.quantization.operations import WEIGHTED, is_parameter, output_channels


def corrected_biases(prepared: GraphModule, batches: Iterable[Batch]) -> dict[str, Tensor]:
    """Return biases with which the mean of each channel is what it is in float.

    Args:
        prepared: Graph with calibrated observers in it.
        batches: What the means are taken from.

    Returns:
        By name of the layer's node. Layers without a bias, or that share theirs, are not in it.
    """
    shifts = _Shifts(prepared)
    with torch.no_grad():
        for batch in batches:
            shifts.run(*as_tuple(batch))
    return shifts.corrected()


def set_biases(prepared: GraphModule, biases: Mapping[str, Tensor]) -> None:
    """Give layers of a graph other biases.

    Args:
        prepared: The graph; tensors that it shares with another are replaced, not changed.
        biases: By name of the layer's node.
    """
    for node in prepared.graph.nodes:
        if node.name in biases:
            prefix, _, name = str(node.args[2].target).rpartition(".")
            owner = prepared.get_submodule(prefix)
            setattr(owner, name, nn.Parameter(biases[node.name], requires_grad=False))


def fit_biases(prepared: GraphModule) -> int:
    """Widen the weight ranges of a calibrated graph, at most twofold, so that its biases fit.

    A bias of less than one step is left as it is.

    Args:
        prepared: Graph with calibrated observers in it, of which those of weights are changed.

    Returns:
        The number of channels whose bias fits now.
    """
    fitted = 0
    for node in _biased(prepared):
        image, weight = _observers(prepared, node)
        fitted += _fit(image, weight, _tensor(prepared, node.args[2]).detach().double().abs())
    return fitted


class _Shifts(Interpreter):
    """Runs in float that also run each layer quantised, and add up what that changes."""

    def __init__(self, prepared: GraphModule) -> None:
        super().__init__(prepared)
        self.extra_traceback = False
        self._prepared = prepared
        self._layers = set(_biased(prepared))
        self._sums: dict[Node, Tensor] = {}
        self._seen: Counter[Node] = Counter()

    def run_node(self, n: Node) -> Any:
        """Run one node; an observer gives what it got."""
        if n.op == "call_module":
            return self.env[n.args[0]]  # type: ignore[index]
        value = super().run_node(n)
        if n in self._layers:
            args, kwargs = self.fetch_args_kwargs_from_env(n)
            layer: Any = n.target
            image, weight = (
                faked(observer, given)
                for observer, given in zip(_observers(self._prepared, n), args[:2], strict=True)
            )
            rows = (layer(image, weight, *args[2:], **kwargs) - value).double()
            rows = rows.movedim(output_channels(n, value), 0).flatten(1)
            self._sums[n] = self._sums.get(n, torch.zeros(())) + rows.sum(1)
            self._seen[n] += rows.shape[1]
        return value

    def corrected(self) -> dict[str, Tensor]:
        """Return the biases less the mean change."""
        found = {}
        for node, total in self._sums.items():
            bias = _tensor(self._prepared, node.args[2]).detach()
            found[node.name] = bias - (total / self._seen[node]).to(bias.dtype)
        return found


def _biased(prepared: GraphModule) -> list[Node]:
    """Return the quantised layers that have a bias to themselves."""
    uses = Counter(
        source.target
        for node in prepared.graph.nodes
        for source in node.all_input_nodes
        if is_parameter(source)
    )
    return [
        node
        for node in prepared.graph.nodes
        if node.target in WEIGHTED
        and len(node.args) > 2
        and is_parameter(node.args[2])
        and uses[node.args[2].target] == 1
        and all(source.op == "call_module" for source in node.args[:2])
    ]


def _observers(prepared: GraphModule, layer: Node) -> list[nn.Module]:
    """Return the observers of a layer's input and weight."""
    sources: Any = layer.args[:2]
    return [prepared.get_submodule(str(source.target)) for source in sources]


def _tensor(prepared: GraphModule, node: Any) -> Tensor:
    found: Tensor = attrgetter(str(node.target))(prepared)
    return found


def _fit(activation: Any, weight: Any, bias: Tensor) -> int:
    of_input = activation.calculate_qparams()[0].double()
    scale = weight.calculate_qparams()[0].double()
    steps = torch.floor(bias / (of_input * scale))
    fits = steps >= 1
    widened = torch.where(fits, bias / (of_input * steps.clamp(min=1)), scale)
    weight.max_val.copy_(widened * weight.quant_max)
    weight.min_val.copy_(widened * -weight.quant_max)
    return int(fits.sum())
