"""Post-training quantisation: capture, observe, calibrate, convert; always of a copy."""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from lit_compress.errors import CalibrationError
from lit_compress.export.onnx import capture
from lit_compress.export.signature import INPUT, Batch
from lit_compress.quantization.calibrate import Calibration, WeightRange, calibrate
from lit_compress.quantization.layer_noise import LayerNoise, layer_noise
from lit_compress.quantization.pt2e import FixedQParamsObserver, convert_pt2e, prepare_pt2e
from lit_compress.quantization.quantizer import OnnxQuantizer
from lit_compress.quantization.rewrites.biases import round_biases, set_biases
from lit_compress.quantization.rewrites.equalize import equalize
from lit_compress.quantization.rewrites.norms import keep_norms_apart
from lit_compress.quantization.skip import select_layers


class WithPreprocessing(nn.Module):
    """A network behind its preprocessing: raw pixels in.

    Args:
        preprocess: Raw pixels to network input.
        network: The network.
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
    """A network whose ranges are known, to be converted with any of its layers left in float.

    Batch norms are folded. The network itself is not touched.

    Args:
        network: Takes tensors, returns one tensor; on the CPU.
        batches: Calibration inputs.
        example: Two inputs or more, to capture the graph with.
        calibration: How a range is taken from what was seen: ``minmax`` takes it all,
            ``histogram`` minimises the error of most inputs, ``percentile`` leaves out 0.005 % on
            either side.
        weight_range: ``full`` weights reach 127; ``reduced`` ones 64.
        names: Names of its inputs.

    Attributes:
        layers: Names of the layers that can be quantised, in the order of the graph.
        readers: For each layer, those that take what it gives.
        weighted: Names of those that have a weight.

    Raises:
        CalibrationError: If a weight or a batch is not finite, or there is no batch.
        ExportError: If the forward cannot be captured.
    """

    def __init__(
        self,
        network: nn.Module,
        batches: Iterable[Batch],
        example: Batch,
        calibration: Calibration = "minmax",
        weight_range: WeightRange = "full",
        names: Sequence[str] = (INPUT,),
    ) -> None:
        network = copy.deepcopy(network).eval()
        _check_finite(network)
        self._program = capture(network, example)
        keep_norms_apart(self._program)
        batches = tuple(batches)
        if batches:
            equalize(self._program.module(check_guards=False), batches, weight_range)
        self._quantizer = OnnxQuantizer(calibration, weight_range, names)
        self._prepared: GraphModule = prepare_pt2e(
            self._program.module(check_guards=False), self._quantizer
        )
        calibrate(self._prepared, batches, self._quantizer.owners, names)
        self._quantizer.clip()
        self._biases = round_biases(self._prepared, batches)
        set_biases(self._prepared, self._biases)
        self._quantizer.freeze(_fixed)
        self.layers = self._quantizer.layers
        self.weighted = self._quantizer.weighted
        self.readers = self._quantizer.readers

    def convert(self, floats: Collection[str] = ()) -> GraphModule:
        """Return the int8 graph, without the float weights it no longer uses.

        Args:
            floats: Names of the layers that are left in float.
        """
        self._quantizer.floats = frozenset(floats)
        try:
            prepared = prepare_pt2e(self._program.module(check_guards=False), self._quantizer)
        finally:
            self._quantizer.floats = frozenset()
        owners = self._quantizer.owners
        set_biases(prepared, {n: b for n, b in self._biases.items() if owners[n] not in floats})
        with torch.no_grad():
            converted: GraphModule = convert_pt2e(prepared)
        _drop_unused(converted)
        return converted

    def noise(self, inputs: Batch) -> tuple[LayerNoise, ...]:
        """Return what quantising each layer alone does to the outputs, in the order of the graph.

        Args:
            inputs: What to measure it with.
        """
        return layer_noise(self._prepared, self._quantizer.owners, inputs)


def quantize(
    network: nn.Module,
    batches: Iterable[Batch],
    example: Batch,
    calibration: Calibration = "minmax",
    weight_range: WeightRange = "full",
    skip: Sequence[str] = (),
) -> GraphModule:
    """Return an int8 graph of a network: per-channel weights, per-tensor activations.

    Args:
        network: As in :class:`Calibrated`.
        batches: As there.
        example: As there.
        calibration: As there.
        weight_range: As there.
        skip: Layers to leave in float: ``first``, ``last`` or patterns of their names.

    Raises:
        CalibrationError: If a weight or a batch is not finite, or there is no batch.
        ExportError: If the forward cannot be captured.
        PatternError: If an entry of ``skip`` matches no layer.
    """
    calibrated = Calibrated(network, batches, example, calibration, weight_range)
    return calibrated.convert(select_layers(skip, calibrated.layers, calibrated.weighted))


def _fixed(observer: nn.Module) -> nn.Module:
    """Return an observer that only knows the range that another one found."""
    scale, zero_point = observer.calculate_qparams()  # type: ignore[operator]
    fixed: nn.Module = FixedQParamsObserver(
        float(scale), int(zero_point), torch.uint8, torch.per_tensor_affine, 0, 255
    )
    return fixed


def _check_finite(network: nn.Module) -> None:
    for name, tensor in (*network.named_parameters(), *network.named_buffers()):
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise CalibrationError(
                f"{name} holds NaN or infinity, so the network cannot be quantised: the training "
                "has diverged (lower the learning rate, or take an earlier checkpoint)"
            )


def _drop_unused(graph: GraphModule) -> None:
    used = {node.target for node in graph.graph.nodes if node.op == "get_attr"}
    for prefix, module in graph.named_modules():
        for tensors in (module._parameters, module._buffers):
            for name in list(tensors):
                if (f"{prefix}.{name}" if prefix else name) not in used:
                    del tensors[name]
