"""Where quantise/dequantise pairs go, so that ONNX Runtime and OpenVINO fuse every one of them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import torch
from torch import nn
from torch.fx import GraphModule, Node

from lit_compress.export.signature import INPUT
from lit_compress.quantization.calibrate import Calibration, WeightRange
from lit_compress.quantization.observers import LARGEST, activation_observer, weight_observer
from lit_compress.quantization.operations import (
    ACTIVATIONS,
    AVERAGES,
    CHOICES,
    CLIPPING,
    COMBINATIONS,
    CONCATENATIONS,
    RECTIFIERS,
    WEIGHTED,
    is_float,
    is_parameter,
    layer_names,
    origin,
)
from lit_compress.quantization.pt2e import (
    MinMaxObserver,
    QuantizationAnnotation,
    QuantizationSpec,
    Quantizer,
)

ANNOTATION = "quantization_annotation"
#: Share of a range that may be given up for a clipping to be folded.
CLIPPED = 1 / 64


class OnnxQuantizer(Quantizer):  # type: ignore[misc]
    """Annotates a captured graph for uint8 activations and per-channel int8 weights.

    Every value has one range, wherever it is moved to; what a concatenation or a pooling joins
    has one in common. Rectifiers are folded into what they follow. The network's outputs stay
    float. The observers are kept, so that a second graph of the same network, with more layers in
    float, needs no second calibration.

    Args:
        calibration: How the range of an activation is taken from what was seen.
        weight_range: ``full`` weights reach 127; ``reduced`` ones 64, for processors that add
            products in 16 bits.
        names: Names of the network's inputs.

    Attributes:
        layers: Names of the layers that are quantised, in the order of the graph.
        readers: For each layer, input or float operation, the layers that take what it gives.
        weighted: Names of the layers that have a weight.
        floats: Names of the layers to leave in float.
    """

    def __init__(
        self,
        calibration: Calibration = "minmax",
        weight_range: WeightRange = "full",
        names: Sequence[str] = (INPUT,),
    ) -> None:
        super().__init__()
        self.calibration = calibration
        self.weight_range = weight_range
        self.names = names
        self.layers: tuple[str, ...] = ()
        self.readers: dict[str, tuple[str, ...]] = {}
        self.weighted: tuple[str, ...] = ()
        self.floats: Collection[str] = ()
        #: For each node of the graph, by name, the layer it belongs to.
        self.owners: dict[str, str] = {}
        self._observers: dict[str, _Ready] = {}
        #: By name of an observer, what its values are clipped to.
        self._limits: dict[str, tuple[float, float]] = {}

    def annotate(self, model: GraphModule) -> GraphModule:
        """Mark every node that is to be quantised, in the order of the graph."""
        placed = _Placement(model, self.names)
        self._describe(placed)
        for node, inputs in placed.inputs.items():
            if self.owners[node.name] not in self.floats:
                self._mark(placed, node, inputs)
        return model

    def validate(self, model: GraphModule) -> None:
        """Accept every graph: what cannot be quantised was left in float."""

    def clip(self) -> None:
        """Narrow ranges that zero's being a whole step has let out of what is clipped anyway.

        ONNX Runtime folds a clipping into the quantisation behind it where that clips as much.
        """
        for name, (low, high) in self._limits.items():
            observer = self._observers[name].observer
            if not isinstance(observer, MinMaxObserver):
                continue
            scale, zero = (float(value) for value in observer.calculate_qparams())
            inside = min(scale, low / -zero if zero else scale, high / max(255 - zero, 1))
            within = low <= float(observer.min_val) and float(observer.max_val) <= high
            if within and inside > scale * (1 - CLIPPED):
                observer.min_val.fill_(-zero * inside)
                observer.max_val.fill_((255 - zero) * inside)

    def freeze(self, made: Callable[[nn.Module], nn.Module]) -> None:
        """Replace every activation's observer by what ``made`` returns for it."""
        for name, ready in self._observers.items():
            if not name.startswith("weight of "):
                ready.observer = made(ready.observer)

    def _describe(self, placed: _Placement) -> None:
        owners = {node: placed.names[placed.folded_into.get(node, node)] for node in placed.names}
        self.owners = {node.name: name for node, name in owners.items()}
        self.layers = tuple(dict.fromkeys(owners[node] for node in placed.inputs))
        self.weighted = tuple(owners[n] for n in placed.inputs if n.target in WEIGHTED)
        readers: dict[str, list[str]] = {}
        for node, inputs in placed.inputs.items():
            for value in inputs:
                readers.setdefault(owners[origin(value)], []).append(owners[node])
        self.readers = {name: tuple(dict.fromkeys(found)) for name, found in readers.items()}

    def _mark(self, placed: _Placement, node: Node, inputs: list[Node]) -> None:
        specs: dict[Node, Any] = {value: self._activation(placed, value) for value in inputs}
        if node.target in WEIGHTED:
            weight = node.args[1]
            if isinstance(weight, Node):
                specs[weight] = self._weight(node, weight)
        output = self._activation(placed, node) if node in placed.quantized else None
        node.meta[ANNOTATION] = QuantizationAnnotation(
            input_qspec_map=specs, output_qspec=output, _annotated=True
        )

    def _activation(self, placed: _Placement, value: Node) -> QuantizationSpec:
        name = placed.range_of(value).name
        if name not in self._observers:
            self._observers[name] = _Ready(activation_observer(self.calibration))
        if (limits := _limits(placed.range_of(value))) is not None:
            self._limits[name] = limits
        return QuantizationSpec(
            torch.uint8, self._observers[name], 0, 255, qscheme=torch.per_tensor_affine
        )

    def _weight(self, node: Node, weight: Node) -> QuantizationSpec:
        name, axis = f"weight of {self.owners[node.name]}", WEIGHTED[node.target]
        if name not in self._observers:
            self._observers[name] = _Ready(weight_observer(axis, self.weight_range))
        largest = LARGEST[self.weight_range]
        return QuantizationSpec(
            torch.int8,
            self._observers[name],
            -largest,
            largest,
            qscheme=torch.per_channel_symmetric,
            ch_axis=axis,
        )


class _Ready:
    """What torchao takes for an observer's constructor, and gives the one that is there."""

    __name__ = "PerChannel or not"  # torchao looks at it for arguments that are not passed on

    def __init__(self, observer: nn.Module) -> None:
        self.observer = observer

    def with_args(self, **_: Any) -> Callable[[], nn.Module]:
        return lambda: self.observer


class _Placement:
    """Which nodes of a graph are quantised, on which inputs, and which values share a range."""

    def __init__(self, model: GraphModule, names: Sequence[str]) -> None:
        output = next(node for node in model.graph.nodes if node.op == "output")
        self._results = {origin(node) for node in output.all_input_nodes}
        #: Names of all nodes.
        self.names = layer_names(model.graph.nodes, names)
        #: Nodes to annotate, with their inputs that are quantised.
        self.inputs: dict[Node, list[Node]] = {}
        #: Nodes whose output is.
        self.quantized: set[Node] = set()
        #: Rectifiers, with the node that they are folded into.
        self.folded_into: dict[Node, Node] = {}
        self._same: dict[Node, Node] = {}
        for node in model.graph.nodes:
            if node.op == "call_function" and node not in self.inputs:
                self._place(node)

    def range_of(self, value: Node) -> Node:
        """Return the node that stands for all values of the same range."""
        found = origin(value)
        while found in self._same:
            found = self._same[found]
        return found

    def _place(self, node: Node) -> None:
        target = node.target
        if target in WEIGHTED:
            if is_parameter(node.args[1]) and is_float(node.args[0]):
                self._with_rectifier(node, node.args[0])
        elif target in COMBINATIONS:
            terms = node.args[:2]
            if all(self._is_quantized(term) for term in terms):
                self._with_rectifier(node, *terms)
        elif target in CONCATENATIONS:
            parts = node.args[0]
            if isinstance(parts, (list, tuple)) and all(self._is_quantized(p) for p in parts):
                self._add(node, *parts)
                self._unite(node, parts)
        elif not self._is_quantized(node.args[0] if node.args else None):
            return
        elif target in CHOICES:
            self._add(node, node.args[0])
            self._unite(node, [node.args[0]])
        elif target in AVERAGES or target in ACTIVATIONS or _is_rectifier(node):
            self._add(node, node.args[0])

    def _with_rectifier(self, node: Node, *inputs: Any) -> None:
        self._add(node, *inputs)
        users = list(node.users)
        if len(users) == 1 and _is_rectifier(users[0]):
            self._add(users[0])
            self.folded_into[users[0]] = node
            self.quantized.discard(node)

    def _add(self, node: Node, *inputs: Any) -> None:
        self.inputs[node] = list(dict.fromkeys(inputs))
        if node not in self._results:
            self.quantized.add(node)

    def _unite(self, node: Node, values: Any) -> None:
        for value in values:
            mine, other = self.range_of(node), self.range_of(value)
            if mine is not other:
                self._same[mine] = other

    def _is_quantized(self, value: Any) -> bool:
        return isinstance(value, Node) and is_float(value) and origin(value) in self.quantized


def _limits(node: Node) -> tuple[float, float] | None:
    """Return what a node clips to, where that is below and above zero."""
    if node.target not in CLIPPING or not _is_rectifier(node):
        return None
    given: list[Any] = list(node.args[1:])
    low, high = given + [-1, 1][len(given) :]  # hardtanh's defaults
    return (float(low), float(high)) if low < 0 < high else None


def _is_rectifier(node: Node) -> bool:
    if node.target not in RECTIFIERS:
        return False
    if "clamp" in str(node.target):
        return len(node.args) == 3 and all(isinstance(a, (int, float)) for a in node.args[1:])
    return True
