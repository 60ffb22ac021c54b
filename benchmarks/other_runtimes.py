"""Files of ExecuTorch and LiteRT for ``int8_latency.py``: ours, and by their own quantisers."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lit_compress.runtimes.executorch import open_executorch
from lit_compress.runtimes.litert import open_litert

if TYPE_CHECKING:
    from torch import Tensor, nn

#: By runtime, the packages that its files need, and the end of their names.
PACKAGES = {
    "executorch": (("executorch",), ".pte"),
    "litert": (("litert_torch", "ai_edge_litert"), ".tflite"),
}


def installed() -> list[str]:
    """Return the runtimes of :data:`PACKAGES` that are installed."""
    return [name for name, (packages, _) in PACKAGES.items() if all(map(find_spec, packages))]


def prepare(network: nn.Module, images: Tensor, graph: nn.Module, folder: Path, batch: int) -> None:
    """Write the files for a batch size.

    Args:
        network: The float network.
        images: Calibration images.
        graph: The network quantised by this package.
        folder: Folder of the files.
        batch: The batch size.
    """
    from lit_compress.formats import exporter
    from lit_compress.formats.quiet import quiet

    inputs = images[:batch]
    for name in installed():
        exporter(name).write(graph, [inputs], folder / f"ours-b{batch}", folder / "ours.onnx")  # type: ignore[arg-type]
        with quiet():
            file = folder / f"own-b{batch}{PACKAGES[name][1]}"
            (_own_executorch if name == "executorch" else _own_litert)(
                network, images, inputs, file
            )


def runner(
    runtime: str, kind: str, folder: Path, images: np.ndarray, threads: int
) -> Callable[[], Any]:
    """Return a function that runs a file once."""
    file = folder / f"{kind}-b{len(images)}{PACKAGES[runtime][1]}"
    opened = open_executorch if runtime == "executorch" else open_litert
    run = opened(file.read_bytes(), threads)
    return lambda: run([images])


def _calibrated(
    network: nn.Module, images: Tensor, inputs: Tensor, quantizer: Any, fold: bool = True
) -> Any:
    """Return a network quantised as the documentation of both runtimes says."""
    import torch
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    prepared = prepare_pt2e(torch.export.export(network, (inputs,)).module(), quantizer)
    with torch.no_grad():
        for start in range(0, len(images) - len(inputs) + 1, len(inputs)):
            prepared(images[start : start + len(inputs)])
    return convert_pt2e(prepared, fold_quantize=fold)


def _own_executorch(network: nn.Module, images: Tensor, inputs: Tensor, file: Path) -> None:
    import torch
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )
    from executorch.exir import to_edge_transform_and_lower

    quantizer = XNNPACKQuantizer().set_global(
        get_symmetric_quantization_config(is_per_channel=True)
    )
    graph = _calibrated(network, images, inputs, quantizer)
    program = torch.export.export(graph, (inputs,))
    lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
    file.write_bytes(lowered.to_executorch().buffer)


def _own_litert(network: nn.Module, images: Tensor, inputs: Tensor, file: Path) -> None:
    import litert_torch
    from litert_torch.quantize import pt2e_quantizer, quant_config

    scheme = pt2e_quantizer.get_symmetric_quantization_config(is_per_channel=True)
    quantizer = pt2e_quantizer.PT2EQuantizer().set_global(scheme)
    graph = _calibrated(network, images, inputs, quantizer, fold=False)
    told = quant_config.QuantConfig(pt2e_quantizer=quantizer)
    litert_torch.convert(graph, (inputs,), quant_config=told).export(str(file))
