"""The quantizer for torchao's PT2E flow: annotates a graph for ONNX Runtime and OpenVINO."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.fx import GraphModule, Node

from lit_compress.errors import CalibrationError
from lit_compress.export.signature import INPUT
from lit_compress.quantization.calibrate import Calibration, WeightRange
from lit_compress.quantization.observers import (
    LARGEST,
    activation_observer,
    fixed_observer,
    weight_observer,
)
from lit_compress.quantization.operations import CLIPPING, WEIGHTED, origin
from lit_compress.quantization.placement import Placement, is_rectifier
from lit_compress.quantization.pt2e import (
    MinMaxObserver,
    QuantizationAnnotation,
    QuantizationSpec,
    Quantizer,
)

#: Key of a node's metadata under which torchao looks for its annotation.
ANNOTATION = "quantization_annotation"
#: Largest share of a range that is given up so that the runtimes can fold a clamp.
CLIPPED = 1 / 64


class OnnxQuantizer(Quantizer):  # type: ignore[misc]
    """Annotates a captured graph for uint8 activations and int8 weights per output channel.

    :class:`Placement` decides what is quantised. The observers are kept, so that a second graph of
    the same network, with more layers in float, needs no second calibration.

    Args:
        calibration: How the range of an activation is taken from its observed values.
        weight_range: Largest magnitude of int8 weights: 127 (``full``) or 64 (``reduced``, for
            processors that add products in 16 bits).
        names: Names of the network's inputs. Default: one input, ``input``.

    Attributes:
        layers: Names of the layers that can be quantised, in the order of the graph.
        readers: By name of a layer, input or float operation, the names of the layers that read
            its output.
        weighted: Names of the layers with a weight, in the order of the graph.
        floats: Names of the layers to leave in float.
        owners: By name of a graph node, the name of its layer.
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
        self.owners: dict[str, str] = {}
        self._activation_observers: dict[str, _ObserverFactory] = {}
        self._weight_observers: dict[str, _ObserverFactory] = {}
        #: By name of an activation observer, the limits that its values are clamped to.
        self._limits: dict[str, tuple[float, float]] = {}

    def annotate(self, model: GraphModule) -> GraphModule:
        """Annotate every node that is to be quantised, in the order of the graph."""
        placement = Placement(model, self.names)
        self._describe(placement)
        for node, inputs in placement.inputs.items():
            if self.owners[node.name] not in self.floats:
                self._annotate_node(placement, node, inputs)
        return model

    def validate(self, model: GraphModule) -> None:
        """Accept every graph: nodes that cannot be quantised stay float."""

    def shrink_clipped_ranges(self) -> None:
        """Shrink ranges that zero-point rounding pushed past the limits of a clamp.

        ONNX Runtime folds a clamp into the quantisation behind it only if the quantisation clips at
        least as much. At most the share ``CLIPPED`` of a range is given up.
        """
        for name, (low, high) in self._limits.items():
            observer: Any = self._activation_observers[name].observer
            if not isinstance(observer, MinMaxObserver):
                continue
            scale, zero = (float(value) for value in observer.calculate_qparams())
            inside = min(scale, low / -zero if zero else scale, high / max(255 - zero, 1))
            within = low <= float(observer.min_val) and float(observer.max_val) <= high
            if within and inside > scale * (1 - CLIPPED):
                observer.min_val.fill_(-zero * inside)
                observer.max_val.fill_((255 - zero) * inside)

    @property
    def activation_ranges(self) -> dict[str, tuple[float, int]]:
        """Scale and zero point of each activation, by the name of its node."""
        found = {}
        for name, factory in self._activation_observers.items():
            scale, zero_point = factory.observer.calculate_qparams()  # type: ignore[operator]
            found[name] = (float(scale), int(zero_point))
        return found

    def fix_activation_ranges(self, least: Mapping[nn.Module, float]) -> None:
        """Give every activation an observer that does not observe any more.

        Args:
            least: By observer, the smallest scale that it may have.
        """
        for factory in self._activation_observers.values():
            scale, zero_point = factory.observer.calculate_qparams()  # type: ignore[operator]
            scale = max(float(scale), least.get(factory.observer, 0.0))
            factory.observer = fixed_observer(scale, int(zero_point))

    def set_activation_ranges(self, ranges: Mapping[str, tuple[float, int]]) -> None:
        """Give every activation a range that no longer changes.

        Args:
            ranges: Scale and zero point by the name of its node.

        Raises:
            CalibrationError: If an activation has none: the ranges are those of another network.
        """
        missing = self._activation_observers.keys() - ranges.keys()
        if missing:
            raise CalibrationError(
                f"the ranges are those of another network: they have none for {min(missing)}; "
                "calibrate the network again"
            )
        for name, factory in self._activation_observers.items():
            factory.observer = fixed_observer(*ranges[name])

    def _describe(self, placement: Placement) -> None:
        """Set ``owners``, ``layers``, ``weighted`` and ``readers``."""
        layer_of = {
            node: placement.names[placement.folded_into.get(node, node)] for node in placement.names
        }
        self.owners = {node.name: layer for node, layer in layer_of.items()}
        self.layers = tuple(dict.fromkeys(layer_of[node] for node in placement.inputs))
        self.weighted = tuple(layer_of[n] for n in placement.inputs if n.target in WEIGHTED)
        readers: dict[str, list[str]] = {}
        for node, inputs in placement.inputs.items():
            for value in inputs:
                readers.setdefault(layer_of[origin(value)], []).append(layer_of[node])
        self.readers = {layer: tuple(dict.fromkeys(names)) for layer, names in readers.items()}

    def _annotate_node(self, placement: Placement, node: Node, inputs: list[Node]) -> None:
        specs: dict[Node, Any] = {value: self._activation(placement, value) for value in inputs}
        if node.target in WEIGHTED:
            weight = node.args[1]
            if isinstance(weight, Node):
                specs[weight] = self._weight(node)
        output = self._activation(placement, node) if node in placement.quantized else None
        node.meta[ANNOTATION] = QuantizationAnnotation(
            input_qspec_map=specs, output_qspec=output, _annotated=True
        )

    def _activation(self, placement: Placement, value: Node) -> QuantizationSpec:
        """Return the specification of an activation, with the observer of its range."""
        name = placement.range_of(value).name
        if name not in self._activation_observers:
            self._activation_observers[name] = _ObserverFactory(
                activation_observer(self.calibration)
            )
        if (limits := _limits(placement.range_of(value))) is not None:
            self._limits[name] = limits
        return QuantizationSpec(
            dtype=torch.uint8,
            observer_or_fake_quant_ctr=self._activation_observers[name],
            quant_min=0,
            quant_max=255,
            qscheme=torch.per_tensor_affine,
        )

    def _weight(self, node: Node) -> QuantizationSpec:
        """Return the specification of a layer's weight, with its observer."""
        # Layers that share a weight share its observer: only the one of the first would observe.
        axis = WEIGHTED[node.target]
        name = f"{node.args[1]}, axis {axis}"
        if name not in self._weight_observers:
            self._weight_observers[name] = _ObserverFactory(
                weight_observer(axis, self.weight_range)
            )
        largest = LARGEST[self.weight_range]
        return QuantizationSpec(
            dtype=torch.int8,
            observer_or_fake_quant_ctr=self._weight_observers[name],
            quant_min=-largest,
            quant_max=largest,
            qscheme=torch.per_channel_symmetric,
            ch_axis=axis,
        )


class _ObserverFactory:
    """Stands in for an observer's constructor, which torchao calls, and returns a kept observer.

    Args:
        observer: The observer to return.
    """

    # torchao looks for "PerChannel" in the class name to decide whether ch_axis is an argument. No
    # argument is used here.
    __name__ = "PerChannel or not"

    def __init__(self, observer: nn.Module) -> None:
        self.observer = observer

    def with_args(self, **_: Any) -> Callable[[], nn.Module]:
        return lambda: self.observer


def _limits(node: Node) -> tuple[float, float] | None:
    """Return the limits of a clamp, if one is below and the other above zero; else None."""
    if node.target not in CLIPPING or not is_rectifier(node):
        return None
    limits: list[Any] = list(node.args[1:])
    low, high = limits + [-1, 1][len(limits) :]  # defaults of hardtanh
    return (float(low), float(high)) if low < 0 < high else None
