"""Inputs kept with their float outputs, to find out whether a machine computes as it should."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from lit_compress.artifact.card import Fidelity
from lit_compress.artifact.fidelity import sqnr_db
from lit_compress.artifact.runtime import OnnxModel
from lit_compress.errors import ArtifactError

REPLAY = "replay.npz"
#: Inputs that are kept.
COUNT = 32
#: How much lower than recorded the ratio may be: kernels round differently, but not by as much.
TOLERANCE_DB = 3.0
OUTPUT = "output"


def write_replay(path: str | Path, inputs: Sequence[np.ndarray], outputs: np.ndarray) -> None:
    """Write inputs as the file takes them, with the outputs of the float network."""
    arrays: dict[str, Any] = {f"input_{place}": array for place, array in enumerate(inputs)}
    arrays[OUTPUT] = outputs
    np.savez_compressed(path, allow_pickle=False, **arrays)


def read_replay(path: str | Path) -> tuple[list[np.ndarray], np.ndarray]:
    """Return the inputs and the float outputs; nothing in the file is executed.

    Raises:
        ArtifactError: If it is damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            inputs = [file[f"input_{place}"] for place in range(len(file.files) - 1)]
            return inputs, file[OUTPUT]
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        raise ArtifactError(f"{path} cannot be read ({error}): write the artefact anew") from error


def check_replay(model: OnnxModel, path: str | Path, recorded: Fidelity) -> float:
    """Replay the stored inputs on this machine and return the ratio reached, in dB.

    Raises:
        ArtifactError: If it is 3 dB under what was recorded where the file was made.
    """
    inputs, expected = read_replay(path)
    reached = sqnr_db(expected, model(*inputs))
    wanted = recorded.sqnr_db if recorded.replay_db is None else recorded.replay_db
    if reached < wanted - TOLERANCE_DB:
        raise ArtifactError(
            f"{model.runtime} gives other answers on this machine: {reached:.1f} dB of the float "
            f"network's, where {wanted:.1f} dB were recorded. Processors without VNNI add products "
            "in 16 bits, which overflow: convert with weight_range: reduced, or load with another "
            "runtime (check=False loads it all the same)"
        )
    return reached
