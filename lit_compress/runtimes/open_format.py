"""Open the files of one format, of one or several batch sizes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from lit_compress.errors import ArtifactError
from lit_compress.files.reading import short
from lit_compress.runtimes.batches import in_batches
from lit_compress.runtimes.calls import REMEDY, or_error, with_forks
from lit_compress.runtimes.executorch import open_executorch
from lit_compress.runtimes.format_file import FormatFile, Port
from lit_compress.runtimes.interface import Engine, Input, Run, Runtime
from lit_compress.runtimes.litert import open_litert
from lit_compress.runtimes.openvino import openvino_run

#: By runtime, the package that it is imported from.
_PACKAGES = {"executorch": "executorch", "litert": "ai_edge_litert", "openvino": "openvino"}
#: The runtimes that read files which only they read.
RUNTIMES: tuple[Runtime, ...] = ("executorch", "litert")


def is_installed(runtime: str) -> bool:
    """Tell whether the package of a runtime can be imported."""
    return find_spec(_PACKAGES[runtime]) is not None


def open_format(
    path: str | Path,
    runtime: Runtime,
    files: Sequence[tuple[FormatFile, tuple[bytes, ...]]],
    threads: int,
) -> Engine:
    """Load the files of a format, so that batches of any size can be run.

    Args:
        path: The artefact folder, for messages.
        runtime: ``executorch``, ``litert`` or ``openvino``.
        files: For each batch size, what the card says, and the content of its files.
        threads: Number of threads; 0 means one per core.

    Raises:
        ArtifactError: If the runtime is not installed, or cannot load a file.
    """
    package = _PACKAGES[runtime]
    if not is_installed(runtime):
        raise ArtifactError(
            f"{runtime} is not installed: pip install {package.replace('_', '-')}, or use another "
            "runtime"
        )
    first = files[0][0]
    runs = {file.batch: _opened(path, runtime, file, parts, threads) for file, parts in files}
    sized = {batch: run for batch, run in runs.items() if batch is not None}
    run = in_batches(sized, first.inputs, first.outputs) if sized else runs[None]
    again = partial(open_format, path, runtime, files, threads)
    run = with_forks(or_error(run, path, runtime), lambda: again().run)
    inputs = tuple(map(_input, first.inputs))
    outputs = tuple(port.name for port in first.outputs)
    return Engine(runtime, inputs, outputs, dict(first.metadata), run, again)


def _opened(
    path: str | Path,
    runtime: Runtime,
    file: FormatFile,
    parts: tuple[bytes, ...],
    threads: int,
) -> Run:
    name = Path(path) / file.files[0]
    if runtime == "openvino":
        return openvino_run(name, parts, threads)
    opener = open_executorch if runtime == "executorch" else open_litert
    try:
        return opener(parts[0], threads)
    except Exception as error:  # the runtimes have no common base class
        raise ArtifactError(f"{runtime} cannot load {name} ({short(error)}): {REMEDY}") from error


def _input(port: Port) -> Input:
    return Input(port.name, port.shape, np.dtype(port.dtype), port.batched)
