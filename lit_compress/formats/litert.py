"""Write ``.tflite`` files for LiteRT, formerly TensorFlow Lite."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor, fx, nn

from lit_compress.formats.exporter import Written
from lit_compress.formats.graph import quantize_weights, signed_graph
from lit_compress.formats.quiet import quiet
from lit_compress.runtimes import Format

SUFFIX = ".tflite"


class LiteRTExporter:
    """Writes one file for each batch size: the converter fixes the sizes of reshapes."""

    format: Format = "litert"
    packages: tuple[str, ...] = ("litert_torch", "ai_edge_litert")
    one_batch = True

    def write(
        self, network: nn.Module, inputs: Sequence[Tensor], path: Path, onnx: Path
    ) -> Written:
        """Write ``path`` with the suffix ``.tflite``.

        A layer whose output stays float is computed in float, with the same rounded weights.

        Args:
            network: The quantised graph, with what goes before it.
            inputs: Example inputs.
            path: Path of the file without its suffix.
            onnx: The ONNX file of the network; it is not used.

        Raises:
            Exception: Of the converter, if it cannot convert the network.
        """
        file = path.with_name(path.name + SUFFIX)
        with quiet():
            import litert_torch
            from litert_torch.quantize import pt2e_quantizer, quant_config

            graph, notes = signed_graph(network, inputs)
            quantize_weights(graph)
            # The graph is quantised already; the quantizer only tells the converter to look for it.
            scheme = pt2e_quantizer.get_symmetric_quantization_config(is_per_channel=True)
            looks = quant_config.QuantConfig(pt2e_quantizer.PT2EQuantizer().set_global(scheme))
            converted = litert_torch.convert(_Fixed(graph), tuple(inputs), quant_config=looks)
            converted.export(str(file))
        return Written((file.name,), notes)


class _Fixed(nn.Module):
    """A graph that is in eval mode already, which an exported one does not let others ask for."""

    def __init__(self, graph: fx.GraphModule) -> None:
        super().__init__()
        self.inner = graph

    def forward(self, *inputs: Tensor) -> Tensor:
        result: Tensor = self.inner(*inputs)
        return result

    def train(self, mode: bool = True) -> _Fixed:
        return self
