"""Post-training quantisation: capture, observe, calibrate, convert; always of a copy."""

from __future__ import annotations

import copy
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from lit_compress.errors import CalibrationError
from lit_compress.quantization.calibrate import CALIBRATIONS, Calibration, calibrate
from lit_compress.quantization.export import capture
from lit_compress.quantization.pt2e import convert_pt2e, prepare_pt2e
from lit_compress.quantization.quantizer import OnnxQuantizer


class Embedded(nn.Module):
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


def quantize(
    network: nn.Module,
    batches: Iterable[Tensor],
    example: Tensor,
    calibration: Calibration = "histogram",
) -> GraphModule:
    """Return an int8 graph of a network: per-channel weights, per-tensor activations.

    Batch norms are folded. The network itself is not touched.

    Args:
        network: Takes one tensor, returns one tensor; on the CPU.
        batches: Calibration inputs.
        example: Two inputs or more, to capture the graph with.
        calibration: How a range is taken from what was seen: ``histogram`` minimises the
            quantisation error, ``minmax`` takes it all.

    Returns:
        The converted graph, without the float weights it no longer uses.

    Raises:
        CalibrationError: If a weight or a batch is not finite, or there is no batch.
        ExportError: If the forward cannot be captured.
    """
    network = copy.deepcopy(network).eval()
    _check_finite(network)
    quantizer = OnnxQuantizer(CALIBRATIONS[calibration])
    prepared = prepare_pt2e(capture(network, example).module(), quantizer)
    calibrate(prepared, batches)
    with torch.no_grad():
        converted: GraphModule = convert_pt2e(prepared)
    _drop_unused(converted)
    return converted


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
