"""The float network as ONNX file in an artefact, with the inputs of the int8 file."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from lit_compress.artifact import Fidelity, OnnxModel, sqnr_db
from lit_compress.artifact.fidelity import sketch
from lit_compress.artifact.folder.names import FP32, MODEL
from lit_compress.artifact.replay import REPLAY, read_replay
from lit_compress.evaluation.export_target import ExportTarget
from lit_compress.export.outputs import as_tensors
from lit_compress.export.signature import as_tuple, first_rows
from lit_compress.files import whole_file


def write_fp32(
    folder: Path, captured: nn.Module, network: ExportTarget, preprocess: nn.Module | None
) -> Fidelity:
    """Write the float network into an artefact, whole or not at all.

    Args:
        folder: The artefact, with the int8 file and the stored inputs.
        captured: The float network, in eval mode.
        network: Where it is, with a recorded batch.
        preprocess: Turns what the int8 file takes into the network's input, if they differ.

    Returns:
        How close the outputs of the file are to those of the network.
    """
    import onnx

    from lit_compress.export.onnx import write_onnx
    from lit_compress.quantization.convert import WithPreprocessing

    inputs, stored = read_replay(folder / REPLAY)
    names = network.signature.names
    recorded = first_rows([as_tuple(network.inputs[0])], len(inputs[0]))
    known = {name: tensor.numpy() for name, tensor in zip(names, recorded, strict=True)}
    used = [item.name for item in OnnxModel(folder / MODEL).inputs]
    known |= dict(zip(used, inputs, strict=True))
    tensors = tuple(torch.from_numpy(known[name]) for name in names)
    network_of_file = captured if preprocess is None else WithPreprocessing(preprocess, captured)
    with torch.no_grad():
        expected = as_tensors(network_of_file(*(tensor.clone() for tensor in tensors)))
    metadata = onnx.load(folder / MODEL).metadata_props
    with whole_file(folder / FP32) as partial:
        write_onnx(
            network_of_file,
            tensors[0] if len(tensors) == 1 else tensors,
            partial,
            metadata={item.key: item.value for item in metadata},
            names=names,
            outputs=network.outputs.names,
        )
    model = OnnxModel(folder / FP32)
    found = model.all_outputs(*(known[item.name] for item in model.inputs))
    worst = min(sqnr_db(one.numpy(), two) for one, two in zip(expected, found, strict=True))
    # Other outputs may be stored: those of the network as it was trained, with fake quantisation.
    to_stored = min(sqnr_db(one, two) for one, two in zip(stored, found, strict=True))
    return Fidelity(worst, None, len(inputs[0]), replay_db=to_stored, replay_sketch=sketch(found))
