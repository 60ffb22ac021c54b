"""Reading checkpoints; nothing in a file is executed, and an error names the file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Literal, TypeVar
from zipfile import is_zipfile

import torch

from lit_compress.checkpoints.content import check_content
from lit_compress.checkpoints.stand_ins import load_with_stand_ins
from lit_compress.errors import CheckpointError
from lit_compress.files.reading import as_path, reading, short, shown
from lit_compress.files.zips import check_zip

T = TypeVar("T")
#: Largest size of a checkpoint in bytes, and most entries of its zip file.
LARGEST, ENTRIES = 1 << 44, 10_000_000
Objects = Literal["refused", "stand-ins", "made"]


def read_checkpoint(path: str | Path, objects: Objects = "refused") -> dict[str, Any]:
    """Return the content of a checkpoint, on the CPU; nothing in it is executed.

    Args:
        path: Path of the checkpoint.
        objects: What is done with objects in the file: with ``stand-ins`` the rest is read, and
            ``made`` runs code of the file.

    Raises:
        CheckpointError: If the file is missing or damaged, or contains more than plain values and
            tensors.
    """
    with reading(path, CheckpointError):
        missing = not as_path(path, CheckpointError).is_file()
    if missing:
        raise CheckpointError(f"there is no checkpoint {shown(Path(path).absolute())}")
    content = read_plain(path, lambda: load_file(path, objects))
    return check_content(path, content)


def read_plain(path: str | Path, read: Callable[[], T]) -> T:
    """Read a file, and turn any error into one that names the file.

    Args:
        path: Path of the file, for messages.
        read: Called to read it; must execute nothing in the file.

    Raises:
        CheckpointError: If the file is damaged, or contains more than plain values and tensors.
    """
    try:
        return read()
    except UnpicklingError as error:
        raise CheckpointError(
            f"{path} contains more than weights and plain values, or is damaged; only files that "
            "load with weights_only=True are read"
        ) from error
    except Exception as error:  # a damaged file fails in zipfile, safetensors or torch
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(
            f"{path} cannot be read ({short(error)}): load another checkpoint"
        ) from error


def check_whole(path: str | Path | None) -> None:
    """Check that the file of a checkpoint exists and is complete.

    Args:
        path: Path of the file. A word such as ``best``, or a URL, is not checked.

    Raises:
        CheckpointError: If the file does not exist or is not complete.
    """
    if path is None or "." not in str(path) or "://" in str(path):
        return
    if not Path(path).exists():
        raise CheckpointError(f"there is no checkpoint {Path(path).resolve()}")
    if Path(path).is_file() and not is_zipfile(path):
        raise CheckpointError(f"{path} is not a checkpoint, or is not complete")
    if Path(path).is_file():
        read_plain(path, lambda: check_zip(str(path), LARGEST, ENTRIES))


def load_file(path: str | Path, objects: Objects) -> Any:
    """Return the content of a file of ``torch.save``, on the CPU.

    Args:
        path: Path of the file.
        objects: As in :func:`read_checkpoint`.
    """
    if is_zipfile(path):
        check_zip(str(path), LARGEST, ENTRIES)
    if objects == "made":
        # The only call that runs code of a file, and only after load_from_checkpoint(...,
        # weights_only=False): Lightning's own word for "I trust this file". Without it, a module
        # whose hyperparameters are objects could not be loaded by any call of this package.
        return torch.load(path, map_location="cpu", weights_only=False)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError:
        if objects == "refused" or not is_zipfile(path):
            raise
        return load_with_stand_ins(path)
