"""The artefact folder of a run, and the float weights in it."""

from __future__ import annotations

import json
from pathlib import Path

from lightning.pytorch import LightningModule, Trainer

from lit_compress.checkpoints.load import WEIGHTS, read_safetensors, save_weights
from lit_compress.pruning.channels.resize import ORIGINAL, UnprunedShapes, resize_to

__all__ = ["WEIGHTS", "artifact_dir", "load_saved", "save_weights"]


def artifact_dir(trainer: Trainer, dirpath: str | None) -> Path:
    """Return the artefact folder: the given one, or ``artifact`` in the run's log folder.

    Call it on every process: ``trainer.log_dir`` is a collective operation.

    Args:
        trainer: The run.
        dirpath: The folder that the user gave, if any.
    """
    log_dir = trainer.log_dir
    if dirpath is not None:
        return Path(dirpath)
    return Path(log_dir or trainer.default_root_dir) / "artifact"


def load_saved(module: LightningModule, path: Path) -> None:
    """Load weights that :func:`save_weights` wrote; the module takes their shapes."""
    state, metadata = read_safetensors(path)
    record = metadata.get(ORIGINAL)
    resize_to(
        module, state, None if record is None else UnprunedShapes.from_dict(json.loads(record))
    )
    module.load_state_dict(state, strict=False)  # extra state is not in the file
