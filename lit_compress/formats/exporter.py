"""What an exporter is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from torch import Tensor, nn

from lit_compress.runtimes import Format


@dataclass(frozen=True)
class Written:
    """What an exporter wrote.

    Attributes:
        files: Names of the files.
        notes: What differs from the ONNX file, in words.
    """

    files: tuple[str, ...]
    notes: tuple[str, ...] = ()


class Exporter(Protocol):
    """Writes a quantised network in one format.

    Attributes:
        format: The format.
        packages: Names of the packages that it imports.
        one_batch: Whether a file is for one batch size.
    """

    format: Format
    packages: tuple[str, ...]
    one_batch: bool

    def write(
        self, network: nn.Module, inputs: Sequence[Tensor], path: Path, onnx: Path
    ) -> Written:
        """Write the file.

        Args:
            network: The quantised graph, with what goes before it. It is not changed.
            inputs: Example inputs, with the batch size that the file is for.
            path: Path of the file without its suffix.
            onnx: The ONNX file of the network.

        Raises:
            Exception: Of the package, if it cannot convert the network.
        """
