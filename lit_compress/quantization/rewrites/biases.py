"""Biases that make up for what quantising does to every image alike.

Rounding a layer's weight and input shifts the means of its outputs. The shift is measured on the
calibration batches and taken off the bias (Nagel et al. 2019, arXiv 1906.04721, section 4.2), each
layer by itself: what the layers before it do is theirs to make up for.

ONNX Runtime adds a bias to int32 sums, whose step is the input's scale times the channel's weight
scale, and rounds it to that. Where weights are large and inputs small, a step can be larger than
one of the output. A weight scale that is a little larger makes the bias a whole number of steps.

Where an input is tiny, as a blank image is, a bias can also have more steps than int32 has numbers.
A larger weight scale prevents this too, but not for a weight that another call needs as it is:
there the scale of the tiny input is made larger, next to the bias it is nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Interpreter, Node

from lit_compress.export.signature import Batch, as_tuple
from lit_compress.quantization.observers import fake_quantize
from lit_compress.quantization.operations import WEIGHTED, channel_dim, is_parameter

#: Most steps that a bias may take of the 2**31 that there are; sums need the rest.
STEPS = 2**30


def round_biases(prepared: GraphModule, batches: Iterable[Batch]) -> dict[str, Tensor]:
    """Return the biases that a calibrated graph should have when it is quantised.

    The mean of each channel is then what it is in float, and biases of a step and more are whole
    numbers of steps, for which weight ranges are widened, at most twofold.

    Args:
        prepared: Graph with calibrated observers in it, of which those of weights are changed.
        batches: What the means are taken from.

    Returns:
        By name of the layer's node. Layers without a bias, or that share theirs, are not in it.
    """
    layers = _biased(prepared)
    weights = Counter(node.args[1] for node in layers)
    alone = [node for node in layers if weights[node.args[1]] == 1]
    biases = {node.name: _tensor(prepared, node.args[2]).detach() for node in layers}
    scales = {node.name: _observers(prepared, node)[1].calculate_qparams()[0] for node in layers}
    _widen(prepared, alone, biases, scales)
    own = with_own_bias(prepared)
    shifts = _Shifts(prepared, own)
    with torch.no_grad():
        for batch in batches:
            shifts.run(*as_tuple(batch))
    found = {
        node.name: (bias := biases[node.name]) - shifts.mean(node.name).to(bias.dtype)
        for node in own
    }
    _widen(prepared, alone, biases | found, scales)  # by nearly as much: the shifts are small
    return found


def least_scales(prepared: GraphModule, biases: Mapping[str, Tensor]) -> dict[nn.Module, float]:
    """Return how large the scales of inputs must be, so that int32 has room for all biases.

    Args:
        prepared: Graph with calibrated observers in it, of which those of weights that several
            layers share are changed: a channel of small weights gets a larger scale, up to the
            largest of its layer.
        biases: What :func:`round_biases` returned for it.

    Returns:
        By observer of an input, the smallest scale.
    """
    found: dict[nn.Module, float] = {}
    for node in _biased(prepared):
        image, weight = _observers(prepared, node)
        bias = biases.get(node.name, _tensor(prepared, node.args[2]).detach()).double().abs()
        scale = weight.calculate_qparams()[0].double()
        if len(bias) != len(scale):
            continue  # see _widen
        needed = bias / (float(image.calculate_qparams()[0]) * STEPS)
        needed = needed.clamp(max=float(scale.max()))
        if bool((needed > scale).any()):
            scale = torch.maximum(scale, needed)
            _set_scale(weight, scale)
        found[image] = max(found.get(image, 0.0), float((bias / scale).max()) / STEPS)
    return found


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


class _Shifts(Interpreter):
    """Runs in float that also run some layers quantised, and add up what that changes."""

    def __init__(self, prepared: GraphModule, layers: Iterable[Node]) -> None:
        super().__init__(prepared)
        self.extra_traceback = False
        self._inputs: dict[Node, tuple[float, int]] = {}
        self._weights: dict[Node, Tensor] = {}
        self._sums: dict[str, Tensor] = {}
        self._seen: Counter[str] = Counter()
        for node in layers:
            image, weight = _observers(prepared, node)
            scale, zero_point = image.calculate_qparams()
            source: Any = node.args[1]
            self._inputs[node] = float(scale), int(zero_point)
            self._weights[node] = fake_quantize(weight, _tensor(prepared, source.args[0]).detach())

    def run_node(self, n: Node) -> Any:
        """Run one node; an observer gives what it got."""
        if n.op == "call_module":
            return self.env[n.args[0]]  # type: ignore[index]
        value = super().run_node(n)
        if n in self._weights:
            (image, _, *others), kwargs = self.fetch_args_kwargs_from_env(n)
            image = torch.fake_quantize_per_tensor_affine(image, *self._inputs[n], 0, 255)
            layer: Any = n.target
            change = layer(image, self._weights[n], *others, **kwargs) - value
            rows = change.double().movedim(channel_dim(n, value), 0)
            rows = rows.reshape(len(rows), -1)
            self._sums[n.name] = self._sums.get(n.name, torch.zeros(())) + rows.sum(1)
            self._seen[n.name] += rows.shape[1]
        return value

    def mean(self, layer: str) -> Tensor:
        """Return the mean change of each channel of a layer."""
        return self._sums.get(layer, torch.zeros(())) / max(self._seen[layer], 1)


def _biased(prepared: GraphModule) -> list[Node]:
    """Return the quantised layers that have a bias."""
    return [
        node
        for node in prepared.graph.nodes
        if node.target in WEIGHTED
        and len(node.args) > 2
        and is_parameter(node.args[2])
        and all(source.op == "call_module" for source in node.args[:2])
    ]


def with_own_bias(prepared: GraphModule) -> list[Node]:
    """Return the quantised layers of a calibrated graph whose bias nothing else reads."""
    layers = _biased(prepared)
    uses = Counter(
        source.target
        for node in prepared.graph.nodes
        for source in node.all_input_nodes
        if is_parameter(source)
    )
    return [node for node in layers if uses[node.args[2].target] == 1]  # type: ignore[union-attr]


def _widen(
    prepared: GraphModule,
    layers: Iterable[Node],
    biases: Mapping[str, Tensor],
    scales: Mapping[str, Tensor],
) -> None:
    """Widen weight ranges from their own scales on, so that biases are whole numbers of steps."""
    for node in layers:
        image, weight = _observers(prepared, node)
        bias, scale = biases[node.name].double().abs(), scales[node.name].double()
        if len(bias) != len(scale):
            continue  # a grouped transposed convolution has one scale for several channels
        of_input = image.calculate_qparams()[0].double()
        steps = torch.floor(bias / (of_input * scale))
        fitting = bias / (of_input * steps.clamp(1, STEPS))
        widened = torch.where(steps >= 1, fitting, scale)
        _set_scale(weight, widened)


def _set_scale(weight: Any, scale: Tensor) -> None:
    """Give the observer of a weight the range that makes this its scale."""
    weight.max_val.copy_(scale * weight.quant_max)
    weight.min_val.copy_(scale * -weight.quant_max)


def _observers(prepared: GraphModule, layer: Node) -> list[Any]:
    """Return the observers of a layer's input and weight."""
    sources: Any = layer.args[:2]
    return [prepared.get_submodule(str(source.target)) for source in sources]


def _tensor(prepared: GraphModule, node: Any) -> Tensor:
    found: Tensor = attrgetter(str(node.target))(prepared)
    return found
