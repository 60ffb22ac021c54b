"""Check the files of an artefact against the SHA-256 values on its card."""

from __future__ import annotations

import hashlib
from pathlib import Path

from lit_compress.artifact.card import Card
from lit_compress.artifact.write import sha256
from lit_compress.errors import ArtifactError
from lit_compress.files.reading import read_limited, reading
from lit_compress.runtimes.onnx import LARGEST


def check_files(folder: str | Path, card: Card, but: tuple[str, ...] = ()) -> None:
    """Check the files of an artefact against the SHA-256 values on its card.

    Args:
        folder: The artefact folder.
        card: Its card.
        but: Names of files that are not checked.

    Raises:
        ArtifactError: If a file is missing or has another SHA-256.
    """
    check_there(folder, card)
    for name, digest in card.files.items():
        if name not in but:
            _check_digest(Path(folder) / name, sha256(Path(folder) / name), digest)


def checked_content(folder: Path, card: Card, name: str) -> bytes:
    """Return the content of a file, whose SHA-256 is that on the card.

    Args:
        folder: The artefact folder.
        card: Its card.
        name: Name of the file, which the card lists.

    Raises:
        ArtifactError: If the file is missing, too large, or has another SHA-256.
    """
    _check_one(folder, name)
    content = read_limited(folder / name, LARGEST, ArtifactError, "what its name says")
    _check_digest(folder / name, hashlib.sha256(content).hexdigest(), card.files[name])
    return content


def check_there(folder: str | Path, card: Card) -> None:
    """Check that each file that a card lists is there; none is read.

    Args:
        folder: The artefact folder.
        card: Its card.

    Raises:
        ArtifactError: If a file is missing.
    """
    for name in card.files:
        _check_one(Path(folder), name)


def _check_one(folder: Path, name: str) -> None:
    with reading(folder / name, ArtifactError):
        missing = not (folder / name).is_file()
    if missing:
        raise ArtifactError(
            f"{folder} has no {name}, which its card lists: copy the artefact again"
        )


def _check_digest(file: Path, found: str, wanted: str) -> None:
    if found != wanted:
        raise ArtifactError(
            f"{file} has another SHA-256 than its card lists: it was changed or truncated, "
            "copy the artefact again"
        )
