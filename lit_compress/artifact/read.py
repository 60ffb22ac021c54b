"""Reading an artefact back: its card, checked, and the model, ready to run."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Literal

from lit_compress.artifact.card import Card, Fidelity
from lit_compress.artifact.engines import RUNTIMES, is_installed
from lit_compress.artifact.replay import REPLAY, check_replay, read_replay
from lit_compress.artifact.runtime import OnnxModel
from lit_compress.artifact.write import CARD, sha256
from lit_compress.errors import ArtifactError

MODEL = "model.onnx"
CARD_LIMIT = 16 << 20
WARM_UP, ROUNDS = 5, 30


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


def load(
    path: str | Path,
    threads: int = 1,
    runtime: Literal["onnxruntime", "openvino", "fastest"] = "onnxruntime",
    check: bool = True,
) -> OnnxModel:
    """Load the int8 model of an artefact; needs neither torch nor lightning.

    Args:
        path: The artefact folder.
        threads: Threads of the runtime; 0 takes one a core.
        runtime: What runs it; ``fastest`` times those that are installed on the stored inputs, one
            at a time, and takes the fastest.
        check: Replay the stored inputs, and raise where this machine gives other answers.

    Returns:
        A callable on a batch, which has the card as ``card``.

    Raises:
        ArtifactError: If the folder is not an artefact; a file in it is missing or not the one
            that the card names by its SHA-256; or this machine computes something else.
        InvalidArgumentError: If an argument cannot be right.
    """
    card = read_card(path)
    check_files(path, card)
    if MODEL not in card.files:
        raise ArtifactError(f"{path} holds no {MODEL}: only a run with quantisation writes one")
    file = Path(path) / MODEL
    if runtime != "fastest":
        model = OnnxModel(file, threads, card, runtime)
    else:
        model = _fastest(file, Path(path), threads, card)
    if check:
        check_replay(model, _replay(Path(path), card), _fidelity(card))
    return model


def check_files(folder: str | Path, card: Card) -> None:
    """Make sure that an artefact's files are those of its card.

    Raises:
        ArtifactError: If one is missing, or has another SHA-256.
    """
    for name, digest in card.files.items():
        file = Path(folder) / name
        if not file.is_file():
            raise ArtifactError(f"{folder} lacks {name}, which its card names: copy it again")
        if sha256(file) != digest:
            raise ArtifactError(
                f"{file} is not the file its card names (SHA-256 differs): it was changed or cut "
                "short, copy it again"
            )


def _replay(folder: Path, card: Card) -> Path:
    if REPLAY not in card.files:
        raise ArtifactError(
            f"{folder} holds no {REPLAY}, so there is nothing to check this machine with: write "
            "the artefact anew, or load it with check=False"
        )
    return folder / REPLAY


def _fidelity(card: Card) -> Fidelity:
    for variant in reversed(card.variants):
        if variant.file == MODEL and variant.fidelity is not None:
            return variant.fidelity
    raise ArtifactError(
        f"the card does not say how close {MODEL} comes to the float network: write the artefact "
        "anew, or load it with check=False"
    )


def _fastest(file: Path, folder: Path, threads: int, card: Card) -> OnnxModel:
    """Return the model in the installed runtime that takes one input through it the fastest."""
    models = [OnnxModel(file, threads, card, name) for name in RUNTIMES if is_installed(name)]
    if len(models) == 1:
        return models[0]
    inputs, _ = read_replay(_replay(folder, card))
    one = [
        array[:1] if given.batched else array
        for given, array in zip(models[0].inputs, inputs, strict=True)
    ]
    times: dict[str, list[float]] = {model.runtime: [] for model in models}
    for round_ in range(WARM_UP + ROUNDS):
        for model in models:
            start = perf_counter()
            model(*one)
            if round_ >= WARM_UP:
                times[model.runtime].append(perf_counter() - start)
    return min(models, key=lambda model: median(times[model.runtime]))
