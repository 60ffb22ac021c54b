"""The float network as ONNX file in an artefact, with the inputs of the int8 file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities import rank_zero_warn
from torch import nn

from lit_compress.artifact import Fidelity, OnnxModel, sqnr_db
from lit_compress.artifact.fidelity import sketch
from lit_compress.artifact.folder.names import FP32, MODEL
from lit_compress.errors import ExportError
from lit_compress.evaluation.export_target import ExportTarget
from lit_compress.evaluation.network import network_paths
from lit_compress.export.checks import LARGEST
from lit_compress.export.outputs import as_tensors
from lit_compress.export.signature import as_tuple, first_rows
from lit_compress.files import whole_file

#: The stored inputs of an artefact, and the outputs for them.
Replay = tuple[Sequence[np.ndarray], Sequence[np.ndarray]]


def check_fits(module: LightningModule, submodule: str | None) -> None:
    """Check before the training that the float network can be an ONNX file.

    Args:
        module: The user's module.
        submodule: Name of the part that is the network; None if any may be.

    Raises:
        ExportError: If it has too many weights, whatever part of the module it is.
    """
    parts = [module.get_submodule(path) for path in network_paths(module, submodule)]
    smallest = min(map(_bytes, parts))
    if smallest > LARGEST:
        raise ExportError(
            f"CompressionReport writes the float network as {FP32}, and an ONNX file has at most "
            f"{LARGEST / 1e9:.2f} GB of weights: this network has {smallest / 1e9:.2f} GB. Leave "
            "CompressionReport out; the int8 file does not need it"
        )


def fits(captured: nn.Module) -> bool:
    """Tell whether the float network can be an ONNX file; warn if it cannot.

    Args:
        captured: The float network.
    """
    found = _bytes(captured)
    if found > LARGEST:
        rank_zero_warn(
            f"there is no {FP32} in the artefact, as the network has {found / 1e9:.2f} GB of "
            f"weights after the pruning, and an ONNX file has at most {LARGEST / 1e9:.2f} GB"
        )
    return found <= LARGEST


def _bytes(network: nn.Module) -> int:
    """Return the bytes of the weights in single precision."""
    tensors = {id(one): one for one in (*network.parameters(), *network.buffers())}
    return 4 * sum(one.numel() for one in tensors.values())


def write_fp32(
    folder: Path,
    captured: nn.Module,
    network: ExportTarget,
    preprocess: nn.Module | None,
    int8: OnnxModel,
    replay: Replay,
    threads: int,
) -> tuple[OnnxModel, Fidelity]:
    """Write the float network into an artefact, whole or not at all.

    Args:
        folder: The artefact.
        captured: The float network, in eval mode.
        network: Where it is, with a recorded batch.
        preprocess: Turns what the int8 file takes into the network's input, if they differ.
        int8: The int8 file.
        replay: The stored inputs.
        threads: Threads of the runtime that opens the file.

    Returns:
        The file, and how close its outputs are to those of the network.
    """
    import onnx

    from lit_compress.export.onnx import write_onnx
    from lit_compress.quantization.convert import WithPreprocessing

    inputs, stored = replay
    names = network.signature.names
    recorded = first_rows([as_tuple(network.inputs[0])], len(inputs[0]))
    known = {name: tensor.numpy() for name, tensor in zip(names, recorded, strict=True)}
    known |= dict(zip((item.name for item in int8.inputs), inputs, strict=True))
    tensors = tuple(torch.from_numpy(known[name]) for name in names)
    network_of_file = captured if preprocess is None else WithPreprocessing(preprocess, captured)
    with torch.no_grad():
        expected = as_tensors(network_of_file(*(tensor.clone() for tensor in tensors)))
    metadata = onnx.load(folder / MODEL, load_external_data=False).metadata_props
    with whole_file(folder / FP32) as partial:
        write_onnx(
            network_of_file,
            tensors[0] if len(tensors) == 1 else tensors,
            partial,
            metadata={item.key: item.value for item in metadata},
            names=names,
            outputs=network.outputs.names,
        )
    model = OnnxModel(folder / FP32, threads)
    found = model.all_outputs(*(known[item.name] for item in model.inputs))
    worst = min(sqnr_db(one.numpy(), two) for one, two in zip(expected, found, strict=True))
    # Other outputs may be stored: those of the network as it was trained, with fake quantisation.
    to_stored = min(sqnr_db(one, two) for one, two in zip(stored, found, strict=True))
    count = len(inputs[0])
    return model, Fidelity(
        worst, None, count, replay_db=to_stored, replay_sketch=sketch(found), replay_n=count
    )
