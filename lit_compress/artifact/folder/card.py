"""Read the card of an artefact."""

from __future__ import annotations

from pathlib import Path

from lit_compress.artifact.card import Card
from lit_compress.artifact.write import CARD
from lit_compress.errors import ArtifactError
from lit_compress.files.reading import as_path, read_limited, reading, shown

#: Largest size of a card in bytes; a larger file is not parsed.
CARD_LIMIT = 16 << 20


def read_card(folder: str | Path) -> Card:
    """Read and validate the card of an artefact folder.

    Args:
        folder: The artefact folder, which contains ``card.json``.

    Raises:
        ArtifactError: If the folder has no ``card.json``, or the file is not a valid card or is
            larger than 16 MiB.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> from lit_compress.artifact import Card, write_card
        >>> with TemporaryDirectory() as folder:
        ...     path = write_card(folder, Card("digits", variants=(), environment={}))
        ...     read_card(folder).run
        'digits'
    """
    path = as_path(folder, ArtifactError) / CARD
    with reading(path, ArtifactError):
        missing = not path.is_file()
    if missing:
        raise ArtifactError(f"{shown(folder)} is not an artefact: it has no {CARD}")
    content = read_limited(path, CARD_LIMIT, ArtifactError, "a card: write the artefact again")
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ArtifactError(f"{path} is not UTF-8 text: write the artefact again") from error
    with reading(path, ArtifactError):
        return Card.from_json(text, str(path))
