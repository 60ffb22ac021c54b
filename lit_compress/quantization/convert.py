"""Post-training quantisation of a copy of a network: capture, calibrate, rewrite, convert."""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from lit_compress.artifact.variant import FloatWeight
from lit_compress.errors import CalibrationError, ExportError
from lit_compress.export.onnx import capture
from lit_compress.export.signature import INPUT, Batch, as_tuple
from lit_compress.quantization.calibrate import (
    Calibration,
    Rounding,
    Track,
    WeightRange,
    calibrate,
    untracked,
)
from lit_compress.quantization.float_weights import float_weights
from lit_compress.quantization.layer_noise import LayerNoise, layer_noise
from lit_compress.quantization.pt2e import convert as convert_prepared
from lit_compress.quantization.pt2e import prepare as prepare_graph
from lit_compress.quantization.quantizer import OnnxQuantizer
from lit_compress.quantization.rewrites.biases import least_scales, round_biases, set_biases
from lit_compress.quantization.rewrites.equalize import equalize, scale_tensors
from lit_compress.quantization.rewrites.norms import FoldedNorm, block_norm_folding, fold_norms
from lit_compress.quantization.rewrites.rounding import learn_rounding, set_weights
from lit_compress.quantization.shuffles import fold_shuffles
from lit_compress.quantization.single_precision import in_single_precision
from lit_compress.quantization.skip import select_layers
from lit_compress.quantization.training.graph import FakeQuantizedGraph
from lit_compress.quantization.training.ranges import Ranges


class WithPreprocessing(nn.Module):
    """A network together with its preprocessing: it takes raw pixels.

    Args:
        preprocess: Module that converts raw pixels to the input of the network.
        network: The network.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> class Scale(nn.Module):
        ...     def forward(self, pixels):
        ...         return pixels.float() / 255
        >>> WithPreprocessing(Scale(), nn.Identity())(torch.tensor([[0, 255]], dtype=torch.uint8))
        tensor([[0., 1.]])
    """

    def __init__(self, preprocess: nn.Module, network: nn.Module) -> None:
        super().__init__()
        self.preprocess = preprocess
        self.wrapped = network

    def forward(self, pixels: Tensor) -> Tensor:
        """Return the network's outputs for raw pixels."""
        outputs: Tensor = self.wrapped(self.preprocess(pixels))
        return outputs


class Calibrated:
    """A calibrated network, ready for conversion with any set of layers left in float.

    The network is copied and captured, its batch norms are folded, and the copy is calibrated after
    cross-layer equalization and before bias correction (both Nagel et al. 2019, arXiv 1906.04721).
    The network itself does not change.

    Args:
        network: Module on the CPU that takes tensors, and returns one or a tuple of them.
        batches: Calibration inputs: tensors, or tuples of tensors.
        example: Example input, see :func:`lit_compress.export.onnx.capture`.
        calibration: How the range of an activation is taken from its observed values. ``minmax``
            covers all values, ``histogram`` minimises the squared error of most inputs at the cost
            of those with outliers, ``percentile`` excludes 0.005 % of the values at each end.
        weight_range: Largest magnitude of int8 weights: 127 (``full``) or 64 (``reduced``).
            Processors without VNNI need ``reduced``: there the sum of two products overflows.
        names: Names of the inputs. Default: one input, ``input``.
        track: Shows how far the calibration is. Default: nothing does.
        ranges: The ranges that the network was trained with, which stay as they are; the batches
            are then not used. Default: they are found on the batches.
        correct: Whether biases are corrected; a network that is trained on needs no correction.
        rounding: ``nearest`` rounds each weight to its nearest number; ``learned`` rounds those of
            a layer so that its outputs change least, see
            :func:`~lit_compress.quantization.rewrites.rounding.learn_rounding`.

    Attributes:
        ranges: The ranges of activations, and the factors of the equalization.
        layers: Names of the layers that can be quantised, in the order of the graph.
        readers: By name of a layer, the names of the layers that read its output.
        weighted: Names of the layers with a weight, in the order of the graph.

    Raises:
        CalibrationError: If a weight or a batch is not finite, or there is no batch.
        ExportError: If the forward cannot be captured.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
        >>> inputs = torch.rand(8, 3)
        >>> calibrated = Calibrated(net, [inputs], inputs)
        >>> calibrated.layers
        ('0', '2')
        >>> int8 = calibrated.convert(floats=["2"])
        >>> int8(inputs).shape
        torch.Size([8, 2])
    """

    def __init__(
        self,
        network: nn.Module,
        batches: Iterable[Batch],
        example: Batch,
        calibration: Calibration = "minmax",
        weight_range: WeightRange = "full",
        names: Sequence[str] = (INPUT,),
        track: Track = untracked,
        ranges: Ranges | None = None,
        correct: bool = True,
        rounding: Rounding = "nearest",
    ) -> None:
        network = copy.deepcopy(network).eval()
        _check_finite(network)
        network = in_single_precision(network)
        self._own = {*dict(network.named_parameters(remove_duplicate=False))}
        self._own |= {*dict(network.named_buffers(remove_duplicate=False))}
        self._program = capture(network, example)
        block_norm_folding(self._program)
        self._graph: GraphModule = self._program.module(check_guards=False)
        self._quantizer = OnnxQuantizer(calibration, weight_range, names)
        self._folded: tuple[FoldedNorm, ...] = ()
        self._biases: dict[str, Tensor] = {}
        self._weights: dict[str, Tensor] = {}
        self._track = track
        if ranges is None:
            self._calibrate(tuple(batches), correct, rounding)
        else:
            self._take(ranges, as_tuple(example))
        self.layers = self._quantizer.layers
        self.weighted = self._quantizer.weighted
        self.readers = self._quantizer.readers

    @property
    def learned(self) -> tuple[str, ...]:
        """Names of the weights whose rounding was learned."""
        return tuple(self._weights)

    def _calibrate(self, batches: tuple[Batch, ...], correct: bool, rounding: Rounding) -> None:
        """Find the ranges on these batches."""
        quantizer, factors = self._quantizer, dict[str, Tensor]()
        if batches:
            factors = equalize(self._graph, batches, quantizer.weight_range)
        self._prepared = self._prepare()
        watched = self._track(batches, "calibration (batches)")
        calibrate(self._prepared, watched, quantizer.owners, quantizer.names)
        quantizer.shrink_clipped_ranges()
        if rounding == "learned":
            self._weights = learn_rounding(self._prepared, batches)
            set_weights(self._prepared, self._weights)
        if correct:
            self._biases = round_biases(self._prepared, batches)
            set_biases(self._prepared, self._biases)
        quantizer.fix_activation_ranges(least_scales(self._prepared, self._biases))
        self.ranges = Ranges(quantizer.activation_ranges, factors)

    def _take(self, ranges: Ranges, example: tuple[Tensor, ...]) -> None:
        """Take these ranges of activations; those of weights come from the weights."""
        scale_tensors(self._graph, ranges.factors)
        self._prepare()
        self._quantizer.set_activation_ranges(ranges.activations)
        self._prepared = self._prepare()
        calibrate(self._prepared, [example], self._quantizer.owners, self._quantizer.names)
        self._quantizer.fix_activation_ranges(least_scales(self._prepared, {}))
        self.ranges = ranges

    def _copy(self) -> GraphModule:
        """Return a copy of the captured graph with the same tensors.

        To make the graph again would take time that is quadratic in the layers: torch.export looks
        through all modules of a level for each tensor.
        """
        tensors = (*self._graph.parameters(), *self._graph.buffers())
        return copy.deepcopy(self._graph, {id(tensor): tensor for tensor in tensors})

    def _prepare(self, floats: Collection[str] = ()) -> GraphModule:
        """Return a graph of its own, with norms folded and observers inserted.

        Args:
            floats: Names of the layers that get none.
        """
        graph = self._copy()
        self._folded = tuple(fold_norms(graph))
        self._quantizer.floats = frozenset(floats)
        try:
            prepared = prepare_graph(graph, self._quantizer)
        finally:
            self._quantizer.floats = frozenset()
        set_weights(prepared, self._weights)
        return prepared

    def trainable(self, floats: Collection[str] = ()) -> FakeQuantizedGraph:
        """Return the graph of the file as a function of weights that can be trained.

        Args:
            floats: Names of the layers that stay in float. Default: none.

        Raises:
            ExportError: If a layer computes its weight from others.
        """
        computed = sorted(self._program.state_dict.keys() - self._own)
        if computed:
            layer = computed[0].rpartition(".")[0] or computed[0]
            raise ExportError(
                f"{layer} computes its weight from others (weight_norm, spectral_norm or another "
                "parametrization), which cannot be trained with fake quantisation: remove the "
                "parametrization before the training, or use PostTrainingQuantization"
            )
        prepared = self._prepare(floats)
        return FakeQuantizedGraph(prepared, self._folded, self.ranges.factors)

    def convert(self, floats: Collection[str] = ()) -> GraphModule:
        """Return the int8 graph. It contains no float weights of quantised layers.

        Args:
            floats: Names of the layers that stay in float. Default: none.
        """
        prepared = self._prepare(floats)
        owners = self._quantizer.owners
        set_biases(prepared, {n: b for n, b in self._biases.items() if owners[n] not in floats})
        converted = convert_prepared(prepared)
        # torchao keeps the float weights, which nothing reads any more.
        _remove_unused_tensors(converted)
        fold_shuffles(converted)
        return converted

    def float_weights(
        self, floats: Collection[str] = (), prefix: str = ""
    ) -> tuple[FloatWeight, ...]:
        """Return the weights that are not int8 after the conversion, largest first, and why.

        Args:
            floats: Names of the layers that stay in float. Default: none.
            prefix: What names of layers begin with in the user's module.
        """
        found = float_weights(self._graph, self._quantizer.names, self.layers, floats)
        return tuple(replace(weight, name=prefix + weight.name) for weight in found)

    def noise(self, inputs: Batch) -> tuple[LayerNoise, ...]:
        """Measure the error of the outputs if a single layer is quantised, for each layer.

        Args:
            inputs: Inputs to measure with.

        Returns:
            One entry per layer, input or float operation, in the order of the graph.
        """
        return layer_noise(self._prepared, self._quantizer.owners, inputs, self._track)


def quantize(
    network: nn.Module,
    batches: Iterable[Batch],
    example: Batch,
    calibration: Calibration = "minmax",
    weight_range: WeightRange = "full",
    skip: Sequence[str] = (),
) -> GraphModule:
    """Quantise a copy of a network: int8 weights per channel, uint8 activations per tensor.

    :func:`lit_compress.export.onnx.write_onnx` writes the result as an ONNX file, in which ONNX
    Runtime and OpenVINO compute with int8.

    Args:
        network: Module on the CPU that takes tensors, and returns one or a tuple of them. It does
            not change.
        batches: Calibration inputs: tensors, or tuples of tensors.
        example: Example input, a tensor or a tuple of tensors.
        calibration: ``minmax``, ``histogram`` or ``percentile``, see :class:`Calibrated`.
        weight_range: ``full`` or ``reduced``, see :class:`Calibrated`.
        skip: Layers that stay in float: ``first``, ``last`` or shell patterns of layer names, see
            :func:`select_layers`.

    Returns:
        The quantised graph. Its weights are int8; it computes in float between quantise and
        dequantise operations.

    Raises:
        CalibrationError: If a weight or a batch is not finite, or there is no batch.
        ExportError: If the forward cannot be captured.
        PatternError: If an entry of ``skip`` matches no layer.

    Example:
        >>> import torch
        >>> inputs = torch.rand(8, 3)
        >>> int8 = quantize(torch.nn.Linear(3, 2), [inputs], inputs)
        >>> sorted({str(tensor.dtype) for tensor in int8.buffers()} - {"torch.float32"})
        ['torch.int64', 'torch.int8']
    """
    calibrated = Calibrated(network, batches, example, calibration, weight_range)
    return calibrated.convert(select_layers(skip, calibrated.layers, calibrated.weighted))


def _check_finite(network: nn.Module) -> None:
    for name, tensor in (*network.named_parameters(), *network.named_buffers()):
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise CalibrationError(
                f"{name} holds NaN or infinity, so the network cannot be quantised: the training "
                "has diverged (lower the learning rate, or take an earlier checkpoint)"
            )


def _remove_unused_tensors(graph: GraphModule) -> None:
    """Remove the parameters and buffers that no node of a graph reads."""
    used = {node.target for node in graph.graph.nodes if node.op == "get_attr"}
    for prefix, module in graph.named_modules():
        for tensors in (module._parameters, module._buffers):
            for name in list(tensors):
                if (f"{prefix}.{name}" if prefix else name) not in used:
                    del tensors[name]
