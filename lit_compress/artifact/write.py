"""Write files and folders atomically: under a temporary name, then fsync, then rename."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lit_compress.artifact.card import Card
from lit_compress.errors import ArtifactError
from lit_compress.files.folders import whole_folder
from lit_compress.files.partial import PART, sibling
from lit_compress.files.reading import sha256_of
from lit_compress.files.whole import whole_file

CARD = "card.json"


def check_target(path: str | Path) -> None:
    """Check that an artefact can be written at ``path``, before hours of training.

    Args:
        path: The artefact folder; it may not exist yet.

    Raises:
        ArtifactError: If the folder cannot be created or written, or contains files that are not
            an artefact and would be lost.

    Example:
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     check_target(Path(folder, "artifact"))
    """
    check_replaceable(path)
    target = Path(path).resolve()
    probe = sibling(target, PART)
    try:
        probe.mkdir(parents=True)
        probe.rmdir()
    except OSError as error:
        raise ArtifactError(
            f"the artefact folder {target} cannot be written ({error.strerror or error}): name "
            "another dirpath, or make it writable"
        ) from error


def check_replaceable(path: str | Path) -> None:
    """Check that nothing but an artefact is lost where one is written; nothing is created.

    Args:
        path: The artefact folder; it may not exist yet.

    Raises:
        ArtifactError: If it is a file, or contains files that are not an artefact.
    """
    target = Path(path).resolve()
    if target.exists() and not target.is_dir():
        raise ArtifactError(f"the artefact folder {target} is a file: name another dirpath")
    if target.is_dir() and any(target.iterdir()) and not (target / CARD).is_file():
        raise ArtifactError(
            f"the folder {target} is not empty and has no {CARD}, so it is not an artefact and "
            "will not be replaced: name another dirpath, or empty the folder"
        )


@contextmanager
def folder_swap(path: str | Path) -> Iterator[Path]:
    """Yield an empty temporary folder that replaces ``path`` when the block succeeds.

    If the block raises or the process is killed, the old folder at ``path`` stays unchanged.

    Args:
        path: The artefact folder, old or new.

    Raises:
        ArtifactError: In the same cases as :func:`check_target`.

    Example:
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     with folder_swap(Path(folder, "artifact")) as partial:
        ...         path = write_card(partial, Card("digits", variants=(), environment={}))
        ...     print([file.name for file in Path(folder, "artifact").iterdir()])
        ['card.json']
    """
    check_target(path)
    with whole_folder(Path(path).resolve()) as partial:
        yield partial


def write_card(folder: str | Path, card: Card) -> Path:
    """Validate a card and write it atomically as ``card.json``.

    Args:
        folder: Existing folder to write to.
        card: The card.

    Returns:
        Path of the written file.

    Raises:
        ArtifactError: If the card does not follow its schema or the file cannot be written.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     write_card(folder, Card("digits", variants=(), environment={})).name
        'card.json'
    """
    path, text = Path(folder) / CARD, card.to_json()
    if not path.parent.is_dir():
        raise ArtifactError(f"{path} cannot be written: there is no folder {path.parent}")
    try:
        with whole_file(path) as partial:
            partial.write_text(text, "utf-8")
    except OSError as error:
        raise ArtifactError(
            f"{path} cannot be written ({error.strerror or error}): free disk space, or make the "
            "folder writable"
        ) from error
    return path


def sha256(path: str | Path) -> str:
    """Return the SHA-256 of a file in hexadecimal (64 digits).

    Example:
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     file = Path(folder, "empty")
        ...     file.touch()
        ...     sha256(file)[:12]
        'e3b0c44298fc'
    """
    return sha256_of(Path(path), ArtifactError)
