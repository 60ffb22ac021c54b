"""Where a run's artefact goes, and the float weights in it."""

from __future__ import annotations

import json
import os
from pathlib import Path

from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from lit_compress.pruning.shapes import ORIGINAL, Original, fit_shapes

WEIGHTS = "model.safetensors"


def artifact_dir(trainer: Trainer, dirpath: str | None) -> Path:
    """Return the artefact folder: as given, or ``artifact`` in the run's log folder.

    Call it on every process: the log folder is agreed upon between them.
    """
    log_dir = trainer.log_dir
    if dirpath is not None:
        return Path(dirpath)
    return Path(log_dir or trainer.default_root_dir) / "artifact"


def save_weights(module: LightningModule, path: Path, original: Original | None = None) -> None:
    """Write a module's weights as safetensors, in one step.

    Args:
        module: The module.
        path: The file.
        original: What the network was before it was pruned, kept in the file's metadata.
    """
    from safetensors.torch import save_file

    state = {
        name: value.cpu().contiguous().clone()
        for name, value in module.state_dict().items()
        if isinstance(value, Tensor)
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    metadata = {"format": "pt"}
    if original is not None:
        metadata[ORIGINAL] = json.dumps(original.to_dict())
    save_file(state, partial, metadata)
    with open(partial, "rb") as file:
        os.fsync(file.fileno())
    os.replace(partial, path)


def load_saved(module: LightningModule, path: Path) -> None:
    """Load weights that :func:`save_weights` wrote, in the shapes that they have there."""
    from safetensors import safe_open
    from safetensors.torch import load_file

    state = load_file(path)
    with safe_open(path, "pt") as file:
        record = (file.metadata() or {}).get(ORIGINAL)
    fit_shapes(module, state, None if record is None else Original.from_dict(json.loads(record)))
    module.load_state_dict(state, strict=False)  # extra state is not in the file
