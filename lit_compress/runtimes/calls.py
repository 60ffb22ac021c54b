"""What goes around each call of a runtime: forks, and errors that name the file."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from lit_compress.errors import ArtifactError
from lit_compress.files.reading import short
from lit_compress.runtimes.interface import Run, Runtime

#: What to do with a file that is refused.
REMEDY = "copy the artefact again, or write it again"


def with_forks(run: Run, again: Callable[[], Run]) -> Run:
    """Return a function that opens its file again in a process that was forked.

    A fork copies no threads. What the threads of a runtime held at that moment stays locked in the
    child, whose first call would wait for ever.
    """
    opened = {os.getpid(): run}  # that of the parent is kept: to close it would wait as well

    def here(arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        process = os.getpid()
        if process not in opened:
            opened[process] = again()
        return opened[process](arrays)

    return here


def or_error(run: Run, path: str | Path, runtime: Runtime) -> Run:
    """Return a function that names the file when a runtime cannot compute its outputs."""

    def safely(arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        try:
            return run(arrays)
        except Exception as error:  # each runtime has exceptions of its own
            raise ArtifactError(
                f"{runtime} cannot compute the outputs of {path} ({short(error)}): {REMEDY}"
            ) from error

    return safely
