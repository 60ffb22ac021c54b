"""Write OpenVINO's own format, an ``.xml`` and a ``.bin`` file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor, nn

from lit_compress.formats.exporter import Written
from lit_compress.runtimes import Format


class OpenVINOExporter:
    """Writes one file for any batch size."""

    format: Format = "openvino"
    packages: tuple[str, ...] = ("openvino",)
    one_batch = False

    def write(
        self, network: nn.Module, inputs: Sequence[Tensor], path: Path, onnx: Path
    ) -> Written:
        """Write ``path`` with the suffixes ``.xml`` and ``.bin``.

        Args:
            network: The quantised graph; it is not used.
            inputs: Example inputs; they are not used.
            path: Path of the files without their suffixes.
            onnx: The ONNX file of the network.

        Raises:
            Exception: Of OpenVINO, if it cannot convert the file.
        """
        import openvino

        model = openvino.convert_model(str(onnx))
        openvino.save_model(model, path.with_name(f"{path.name}.xml"), compress_to_fp16=False)
        return Written((f"{path.name}.xml", f"{path.name}.bin"))
