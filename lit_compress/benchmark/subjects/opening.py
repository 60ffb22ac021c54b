"""Open what is at a path, for a measurement."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lit_compress.benchmark.subjects.file import artefact_subject, file_subject
from lit_compress.benchmark.subjects.inputs import Shape
from lit_compress.benchmark.subjects.subject import Subject
from lit_compress.errors import ArtifactError, InvalidArgumentError
from lit_compress.files.reading import as_path, reading, shown

#: Ends of the names of checkpoints, and what a checkpoint begins with: it is a zip.
CHECKPOINTS, ZIP = (".ckpt", ".pt", ".pth"), b"PK\x03\x04"


def open_subject(
    path: str | Path,
    shapes: Sequence[Shape] = (),
    model: str | None = None,
    check: bool = True,
) -> Subject:
    """Open what is at a path.

    Args:
        path: An artefact folder, an ONNX file, a packed file, or a checkpoint.
        shapes: Shapes of one example, where the file leaves them open.
        model: Import path of the class of a checkpoint's module.
        check: Whether to run the stored inputs of an artefact first.

    Raises:
        LitCompressError: If it is none of these, or damaged.
    """
    place = as_path(path, ArtifactError)
    with reading(place, ArtifactError):
        folder, there = place.is_dir(), place.exists()
    if not there:
        raise InvalidArgumentError(
            f"there is no file or folder {shown(place)}: give an artefact, an ONNX file or a "
            "checkpoint"
        )
    if not folder and _is_checkpoint(place):
        # It imports torch and Lightning.
        from lit_compress.benchmark.subjects.checkpoint import CheckpointSubject

        return CheckpointSubject(place, shapes, model)
    return artefact_subject(place, shapes, check) if folder else file_subject(place, shapes)


def _is_checkpoint(path: Path) -> bool:
    if path.suffix.lower() in CHECKPOINTS:
        return True
    with reading(path, ArtifactError), open(path, "rb") as file:
        return file.read(len(ZIP)) == ZIP
