"""Writing that is whole or not at all: temporary name, fsync, rename."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lit_compress.artifact.card import Card
from lit_compress.errors import ArtifactError

CARD = "card.json"


def check_target(path: str | Path) -> None:
    """Make sure that an artefact can be written at ``path``, before hours are spent on it.

    Raises:
        ArtifactError: If the folder cannot be made or written, or holds something that is not an
            artefact and would be lost.
    """
    target = Path(path).resolve()
    if target.exists() and not target.is_dir():
        raise ArtifactError(f"the artefact folder {target} is a file: name another dirpath")
    if target.is_dir() and any(target.iterdir()) and not (target / CARD).is_file():
        raise ArtifactError(
            f"the folder {target} is not empty and holds no {CARD}, so it is not an artefact and "
            "will not be replaced: name another dirpath, or empty it"
        )
    probe = _beside(target, "probe")
    try:
        probe.mkdir(parents=True)
        probe.rmdir()
    except OSError as error:
        raise ArtifactError(
            f"the artefact folder {target} cannot be written ({error.strerror or error}): name "
            "another dirpath, or make it writable"
        ) from error


@contextmanager
def folder_swap(path: str | Path) -> Iterator[Path]:
    """Give an empty temporary folder that takes the place of ``path`` once the block succeeds.

    A block that raises, or a process killed in it, leaves what stood at ``path`` as it was.

    Raises:
        ArtifactError: As :func:`check_target`.
    """
    check_target(path)
    target = Path(path).resolve()
    partial, previous = _beside(target, "part"), _beside(target, "old")
    for stale in (partial, previous):  # of a killed process that had this number
        shutil.rmtree(stale, ignore_errors=True)
    partial.mkdir()
    try:
        yield partial
        for file in partial.iterdir():
            _sync(file)
        _sync(partial)
        if target.exists():
            os.replace(target, previous)
        try:
            os.replace(partial, target)
        except OSError:
            if previous.exists():
                os.replace(previous, target)
            raise
        _sync(target.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        if target.exists():
            shutil.rmtree(previous, ignore_errors=True)


def write_card(folder: str | Path, card: Card) -> Path:
    """Write ``card.json`` into a folder, in one step, checked against its schema.

    Returns:
        The path of the card.

    Raises:
        ArtifactError: If the card is not valid or the file cannot be written.
    """
    path = Path(folder) / CARD
    partial = _beside(path, "part")
    text = card.to_json()
    try:
        partial.write_text(text, "utf-8")
        _sync(partial)
        os.replace(partial, path)
        _sync(path.parent)
    except OSError as error:
        with suppress(OSError):
            partial.unlink()
        raise ArtifactError(f"{path} cannot be written: {error.strerror or error}") from error
    return path


def sha256(path: str | Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _beside(path: Path, role: str) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.{role}")


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
