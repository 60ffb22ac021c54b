"""The machine of a run: where it writes, the space there, and its processor."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from lit_compress.artifact.write import check_replaceable
from lit_compress.callbacks.post_training_quantization import PostTrainingQuantization
from lit_compress.doctor.finding import Answer, error, fine, warning
from lit_compress.evaluation.trainer_access import callbacks_of_type, is_fast_dev_run
from lit_compress.runtimes.processor import lacks_vnni

#: Of an optimizer with two moments, a checkpoint has three numbers for each weight.
NUMBERS = 3


def check_folder(folder: Path, callbacks: Sequence[Callback]) -> list[Answer]:
    """Check that a run can write its folders, without writing to them.

    Args:
        folder: The folder of the run.
        callbacks: Its callbacks; some have a folder of their own.
    """
    given = [getattr(callback, "dirpath", None) for callback in callbacks]
    named = [Path(path) for path in given if isinstance(path, (str, Path))]
    found = [answer for path in [folder, *named] for answer in _unwritable(path)]
    for callback in callbacks:
        dirpath = getattr(callback, "dirpath", None)
        if isinstance(callback, PostTrainingQuantization) and dirpath is not None:
            check_replaceable(dirpath)
    return found or [fine(f"{folder} can be written")]


def check_space(trainer: Trainer, module: LightningModule, folder: Path) -> Answer:
    """Compare the free space with what checkpoints and artefact take at most.

    Args:
        trainer: The Trainer.
        module: The module.
        folder: The folder of the run.
    """
    weights = sum(p.numel() * p.element_size() for p in module.parameters())
    kept = 0
    for callback in callbacks_of_type(trainer, ModelCheckpoint):
        kept += _kept(callback, trainer.max_epochs)
    artifacts = len(callbacks_of_type(trainer, PostTrainingQuantization))
    needed = 0 if is_fast_dev_run(trainer) else weights * (NUMBERS * kept + 2 * artifacts)
    free = shutil.disk_usage(_existing(folder)).free
    text = f"{_size(free)} free at {folder}"
    plan = f"{kept} checkpoints and {artifacts} artefacts take up to {_size(needed)}"
    if free < needed:
        remedy = "free space, keep fewer checkpoints (save_top_k), or set trainer.default_root_dir"
        return error(f"{text}, and {plan}", remedy)
    return fine(f"{text}; {plan}")


def check_processor(trainer: Trainer) -> Answer:
    """Check that int8 sums do not overflow on this processor.

    Args:
        trainer: The Trainer.
    """
    lacking = lacks_vnni()
    full = [
        callback
        for callback in callbacks_of_type(trainer, PostTrainingQuantization)
        if callback.settings.weight_range == "full"
    ]
    if lacking and full:
        return warning(
            "this processor has no VNNI: here sums of uint8 and int8 products overflow in ONNX "
            "Runtime, unless lit_compress.load opens the file, which is then slower",
            f"set weight_range: reduced in {type(full[0]).__name__}, if the file is to run on such "
            "processors without lit-compress",
        )
    return fine("no VNNI is known to be missing" if not lacking else "no VNNI, and none is needed")


def _kept(callback: ModelCheckpoint, max_epochs: int | None) -> int:
    """Return how many checkpoints a callback keeps at once, at most."""
    top = callback.save_top_k
    return (max(1, max_epochs or 1) if top < 0 else top) + bool(callback.save_last)


def _unwritable(path: Path) -> list[Answer]:
    """Return what prevents writing to a folder that may not exist yet."""
    there = _existing(path)
    if not there.is_dir():
        return [error(f"{there} is a file, and a folder is needed", "name another folder")]
    if not os.access(there, os.W_OK | os.X_OK):
        remedy = "make it writable, or set trainer.default_root_dir or dirpath to another folder"
        return [error(f"{there} cannot be written", remedy)]
    return []


def _existing(path: Path) -> Path:
    """Return the path itself, or the first folder above it that exists."""
    path = path.absolute()
    return next(one for one in (path, *path.parents) if one.exists())


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"
