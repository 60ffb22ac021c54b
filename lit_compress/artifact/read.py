"""Reading an artefact back: its card, checked, and the model, ready to run."""

from __future__ import annotations

from pathlib import Path

from lit_compress.artifact.card import Card
from lit_compress.artifact.runtime import OnnxModel
from lit_compress.artifact.write import CARD, sha256
from lit_compress.errors import ArtifactError

MODEL = "model.onnx"
CARD_LIMIT = 16 << 20


def read_card(folder: str | Path) -> Card:
    """Return the card of an artefact folder.

    Raises:
        ArtifactError: If there is none, it is not one, or it is implausibly large.
    """
    path = Path(folder) / CARD
    if not path.is_file():
        raise ArtifactError(f"{folder} is not an artefact: it holds no {CARD}")
    if path.stat().st_size > CARD_LIMIT:
        raise ArtifactError(f"{path} is larger than {CARD_LIMIT >> 20} MiB, so it is not a card")
    try:
        text = path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise ArtifactError(f"{path} is not text: write the artefact anew") from error
    return Card.from_json(text, str(path))


def load(path: str | Path, threads: int = 1) -> OnnxModel:
    """Load the int8 model of an artefact; needs neither torch nor lightning.

    Args:
        path: The artefact folder.
        threads: Threads of ONNX Runtime; 0 takes one a core.

    Returns:
        A callable on a batch, which has the card as ``card``.

    Raises:
        ArtifactError: If the folder is not an artefact, or a file in it is missing or not the one
            that the card names by its SHA-256.
    """
    card = read_card(path)
    for name, digest in card.files.items():
        file = Path(path) / name
        if not file.is_file():
            raise ArtifactError(f"{path} lacks {name}, which its card names: copy it again")
        if sha256(file) != digest:
            raise ArtifactError(
                f"{file} is not the file its card names (SHA-256 differs): it was changed or cut "
                "short, copy it again"
            )
    if MODEL not in card.files:
        raise ArtifactError(f"{path} holds no {MODEL}: only a run with quantisation writes one")
    return OnnxModel(Path(path) / MODEL, threads, card)
