"""Where a run writes its files: the artefact, and the weights before pruning."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from weakref import WeakKeyDictionary

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger

from lit_compress.artifact.write import CARD
from lit_compress.errors import ArtifactError
from lit_compress.evaluation.distributed import on_rank_zero
from lit_compress.evaluation.trainer_access import is_fast_dev_run


@dataclass(frozen=True)
class RunFiles:
    """The places of a run's files; no other run writes there.

    Attributes:
        artifact: The artefact folder.
        dense: File of the float weights just before the first pruning step.
    """

    artifact: Path
    dense: Path


#: By run, its files in a folder that other runs may share.
_TAKEN: WeakKeyDictionary[Trainer, RunFiles] = WeakKeyDictionary()


def run_files(trainer: Trainer) -> RunFiles:
    """Return where a run writes.

    It is ``artifact`` and ``dense.safetensors`` in the folder in which ModelCheckpoint makes its
    own. Only TensorBoardLogger and CSVLogger make a new folder for each run. In any other folder
    the files of a further run are called ``artifact-v1`` and so on, as ModelCheckpoint's are; the
    empty folder keeps the name until :func:`release`.

    Call it on every process.

    Args:
        trainer: The run.

    Raises:
        ArtifactError: If the folder cannot be made.
    """
    return on_rank_zero(trainer, lambda: _found(trainer))


def run_folder(trainer: Trainer) -> Path:
    """Return the folder of a run, in which ModelCheckpoint makes its own; nothing is created.

    Args:
        trainer: The run.
    """
    logger = trainer.loggers[0] if trainer.loggers else None
    if isinstance(logger, (TensorBoardLogger, CSVLogger)):
        return Path(logger.log_dir)
    return _shared_folder(trainer, logger)


def _is_of_one_run(trainer: Trainer) -> bool:
    """Tell whether the folder is new for each run."""
    return bool(trainer.loggers) and isinstance(trainer.loggers[0], (TensorBoardLogger, CSVLogger))


def artifact_dir(trainer: Trainer, dirpath: str | None) -> Path:
    """Return the artefact folder: the given one, or that of the run. Call it on every process.

    Args:
        trainer: The run.
        dirpath: The folder that the user gave, if any.
    """
    return run_files(trainer).artifact if dirpath is None else Path(dirpath)


def trained_weights(artifact: Path) -> Path:
    """Return the file of the float weights for which no artefact could be written."""
    return artifact.with_name(f"{artifact.name}-trained.safetensors")


def is_artifact(path: Path) -> bool:
    """Tell whether there is an artefact at a path."""
    return (path / CARD).is_file()


def release(trainer: Trainer) -> None:
    """Give the names back to other runs, if the run has written nothing.

    Args:
        trainer: The run.
    """
    taken = _TAKEN.get(trainer)
    if taken is None:
        return
    with suppress(OSError):  # it is not empty: the artefact was written
        taken.artifact.rmdir()
    if not any(map(Path.exists, (taken.artifact, taken.dense, trained_weights(taken.artifact)))):
        del _TAKEN[trainer]


def _found(trainer: Trainer) -> RunFiles:
    folder = run_folder(trainer)
    if _is_of_one_run(trainer):
        return _numbered(folder, 0)
    if is_fast_dev_run(trainer):
        return _numbered(folder, 0)  # nothing is written
    taken = _TAKEN.get(trainer)
    if taken is None or taken.dense.parent != folder.absolute():
        taken = _TAKEN[trainer] = _take(folder)
    return taken


def _shared_folder(trainer: Trainer, logger: Logger | None) -> Path:
    """Return the folder of the run's checkpoints (``ModelCheckpoint.__resolve_ckpt_dir``)."""
    if logger is None:
        return Path(trainer.default_root_dir)
    version = f"version_{logger.version}" if isinstance(logger.version, int) else logger.version
    parts = [str(part) for part in (logger.name, version) if part is not None]
    return Path(logger.save_dir or trainer.default_root_dir, *parts)


def _take(folder: Path) -> RunFiles:
    """Make the first artefact folder whose name no other run has."""
    number = 0
    try:
        folder.mkdir(parents=True, exist_ok=True)
        while not _is_made(_numbered(folder, number)):
            number += 1
    except OSError as error:
        raise ArtifactError(
            f"the artefact folder {folder / 'artifact'} cannot be written "
            f"({error.strerror or error}): name another dirpath, or make it writable"
        ) from error
    return _numbered(folder, number)


def _is_made(files: RunFiles) -> bool:
    """Make the artefact folder, and tell whether no other run has it. Of two at once, one does."""
    if files.dense.exists() or trained_weights(files.artifact).exists():
        return False
    try:
        files.artifact.mkdir()
    except FileExistsError:
        return False
    return True


def _numbered(folder: Path, number: int) -> RunFiles:
    suffix = f"-v{number}" if number else ""
    return RunFiles(
        folder / f"artifact{suffix}", (folder / f"dense{suffix}.safetensors").absolute()
    )
