"""Read an artefact next to a writer, which may replace it meanwhile."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from time import sleep
from typing import TypeVar

from lit_compress.artifact.write import CARD
from lit_compress.errors import ArtifactError, CheckpointError

T = TypeVar("T")

#: How often an artefact that was replaced is read again, and the pause before it in seconds.
TRIES, PAUSE = 5, 0.05


def while_replaced(path: Path, read: Callable[[], T]) -> T:
    """Read an artefact, and once more if a writer replaced it meanwhile.

    Args:
        path: The artefact folder.
        read: Reads it.

    Raises:
        ArtifactError: If the artefact is damaged, or is replaced all the time.
    """
    for _ in range(TRIES):
        before = _identity(path)
        try:
            return read()
        except (ArtifactError, CheckpointError):
            sleep(PAUSE)
            if _identity(path) == before:
                raise
    return read()


def _identity(path: Path) -> tuple[int, int, int] | None:
    """Return what tells an artefact from the next one at its path; None if none is there."""
    try:
        found = os.stat(path / CARD)
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
