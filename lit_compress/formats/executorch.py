"""Write ``.pte`` files for ExecuTorch, with its XNNPACK kernels."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lit_compress.formats.exporter import Written
from lit_compress.formats.graph import signed_graph
from lit_compress.formats.quiet import quiet
from lit_compress.runtimes import Format

SUFFIX = ".pte"
#: How ExecuTorch prints an operation of a graph.
OPERATION = re.compile(r"\baten\.(\w+)\.")


class ExecuTorchExporter:
    """Writes one file for each batch size: XNNPACK fails on some graphs with a dynamic one."""

    format: Format = "executorch"
    packages: tuple[str, ...] = ("executorch",)
    one_batch = True

    def write(
        self, network: nn.Module, inputs: Sequence[Tensor], path: Path, onnx: Path
    ) -> Written:
        """Write ``path`` with the suffix ``.pte``.

        A layer whose output stays float is computed in float, with the same rounded weights.

        Args:
            network: The quantised graph, with what goes before it.
            inputs: Example inputs.
            path: Path of the file without its suffix.
            onnx: The ONNX file of the network; it is not used.

        Raises:
            Exception: Of ExecuTorch, if it cannot convert the network.
        """
        with quiet():
            import executorch.kernels.quantized  # noqa: F401 - operators outside of XNNPACK
            from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
            from executorch.exir import to_edge_transform_and_lower

            graph, notes = signed_graph(network, inputs)
            with torch.no_grad():
                program = torch.export.export(graph, tuple(inputs))
            lowered: Any = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
            content = lowered.to_executorch().buffer
        file = path.with_name(path.name + SUFFIX)
        file.write_bytes(content)
        return Written((file.name,), (*notes, *_outside(lowered)))


def _outside(lowered: Any) -> Iterator[str]:
    """Yield a note of the operations that XNNPACK does not take."""
    nodes = lowered.exported_program().graph.nodes
    targets = [str(node.target) for node in nodes if node.op == "call_function"]
    others = Counter(found[1] for target in targets if (found := OPERATION.search(target)))
    if others:
        listed = ", ".join(f"{count} {name}" for name, count in others.most_common())
        yield f"outside of XNNPACK: {listed}"
