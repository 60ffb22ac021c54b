"""Open the file of an artefact that a choice of runtime and network names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from lit_compress.artifact.card import Card, Fidelity
from lit_compress.artifact.fastest import Choice, format_files
from lit_compress.artifact.folder.checksums import checked_content
from lit_compress.artifact.folder.names import model_file
from lit_compress.artifact.runtime import OnnxModel
from lit_compress.errors import ArtifactError
from lit_compress.runtimes.format_file import FormatFile
from lit_compress.runtimes.interface import Runtime
from lit_compress.runtimes.open_format import RUNTIMES, open_format

#: A model, what the card says of its outputs, and the names of the files that were read.
Opened = tuple[OnnxModel, Callable[[], Fidelity], tuple[str, ...]]


def open_choice(folder: Path, card: Card, choice: Choice, threads: int) -> Opened:
    """Open the file of an artefact that a choice names.

    Args:
        folder: The artefact folder.
        card: Its card.
        choice: The runtime, and which network.
        threads: Number of threads.

    Returns:
        The model, a function that returns what the card says of its outputs, and the names of the
        files that were read and checked.

    Raises:
        ArtifactError: As :func:`~lit_compress.artifact.load`.
        InvalidArgumentError: As :func:`~lit_compress.artifact.load`.
    """
    if choice.runtime in RUNTIMES:
        return _of_format(folder, card, choice.runtime, threads)
    name = model_file(folder, card, choice.weights)
    content = checked_content(folder, card, name)
    model = OnnxModel(folder / name, threads, card, choice.runtime, content)
    return model, lambda: _recorded_fidelity(card, name), (name,)


def _of_format(folder: Path, card: Card, runtime: Runtime, threads: int) -> Opened:
    files = format_files(card, runtime)
    if not files:
        raise ArtifactError(
            f"{folder} has no file for {runtime}: write one, with formats: [onnx, {runtime}] of "
            "PostTrainingQuantization"
        )
    names = tuple(name for found in files for name in found.files)
    if missing := [name for name in names if name not in card.files]:
        raise ArtifactError(f"the card of {folder} lists no {missing[0]}: write the artefact again")
    contents = [
        (found, tuple(checked_content(folder, card, name) for name in found.files))
        for found in files
    ]
    engine = open_format(folder, runtime, contents, threads)
    model = OnnxModel(folder / names[0], threads, card, engine=engine)
    return model, lambda: _format_fidelity(files[0]), names


def _format_fidelity(file: FormatFile) -> Fidelity:
    if file.sqnr_db is None:
        raise _no_fidelity(file.files[0])
    return Fidelity(
        file.sqnr_db,
        file.agreement,
        0,
        replay_db=file.replay_db,
        replay_sketch=file.replay_sketch,
    )


def _recorded_fidelity(card: Card, file: str) -> Fidelity:
    for variant in reversed(card.variants):
        if variant.file == file and variant.fidelity is not None:
            return variant.fidelity
    raise _no_fidelity(file)


def _no_fidelity(file: str) -> ArtifactError:
    return ArtifactError(
        f"the card has no fidelity for {file}, the value to compare this machine with: write the "
        "artefact again, or load it with check=False"
    )
