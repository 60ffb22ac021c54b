"""Read an artefact: its model, ready to run and checked on this machine."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Literal, cast

from lit_compress.artifact.card import Card
from lit_compress.artifact.fastest import Choice, choices, fastest_choice
from lit_compress.artifact.folder.card import read_card
from lit_compress.artifact.folder.checksums import check_files, check_there, checked_content
from lit_compress.artifact.folder.choice import Opened, open_choice
from lit_compress.artifact.folder.replaced import while_replaced
from lit_compress.artifact.replay import REPLAY, check_replay, read_replay
from lit_compress.artifact.runtime import OnnxModel
from lit_compress.errors import ArtifactError, InvalidArgumentError
from lit_compress.files.reading import as_path
from lit_compress.runtimes.interface import Runtime
from lit_compress.runtimes.onnx import RUNTIMES
from lit_compress.runtimes.open_format import RUNTIMES as FORMAT_RUNTIMES

#: The runtime that means the fastest one.
FASTEST = "fastest"


def load(
    path: str | Path,
    threads: int = 1,
    runtime: Literal["onnxruntime", "openvino", "executorch", "litert", "fastest"] = "onnxruntime",
    check: bool | Literal["all"] = True,
    weights: Literal["int8", "fp32"] = "int8",
    batch: int = 1,
) -> OnnxModel:
    """Load the int8 model of an artefact. Neither torch nor lightning is imported.

    The card and the SHA-256 of each file that is run are checked first, and that every file of the
    card is there. Loading never executes code from the folder.

    Args:
        path: The artefact folder.
        threads: Number of threads of the runtime; 0 means one per core.
        runtime: The runtime. ``executorch`` and ``litert`` need a file of that format in the
            artefact. ``fastest`` times every file of the artefact, the float network too, in every
            installed runtime that reads it, for ``batch`` and ``threads``, and returns the fastest.
            The choice is remembered for this artefact, machine and versions, see
            :func:`~lit_compress.artifact.fastest.fastest_choice`. With ``weights="fp32"`` only the
            float network is timed.
        check: Whether to run the stored inputs, and to refuse the model if the outputs on this
            machine are more than 3 dB further from the float network's than recorded, or, but in
            OpenVINO, less than 50 dB from those of the same file where it was written. ``"all"``
            also compares the SHA-256 of the files that are not run, such as the float weights,
            which have four times the bytes.
        weights: ``fp32`` loads the float network, which an artefact has if the run had
            CompressionReport: on some processors it is the faster one for narrow layers.
        batch: Batch size for which the fastest runtime is found, from 1.

    Returns:
        The model, a callable that takes a batch as numpy array and returns the outputs. Its
        attribute ``card`` is the card.

    Raises:
        ArtifactError: If the folder is not an artefact, a file is missing or differs from its
            SHA-256 on the card, the runtime is not installed or cannot load the model, or the
            outputs on this machine differ too much.
        InvalidArgumentError: If ``threads``, ``runtime`` or ``check`` is invalid.

    Example:
        The callback :class:`~lit_compress.callbacks.PostTrainingQuantization` writes artefacts. The
        one made here holds a network that doubles its input.

        >>> import numpy as np, onnx.parser
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> from lit_compress.artifact import Card, Fidelity, Variant
        >>> from lit_compress.artifact import sha256, write_card, write_replay
        >>> temporary = TemporaryDirectory()
        >>> folder = Path(temporary.name)
        >>> onnx.save(onnx.parser.parse_model('''
        ...     <ir_version: 10, opset_import: ["": 20]>
        ...     twice (float[batch, 3] x) => (float[batch, 3] y) { y = Add(x, x) }
        ... '''), folder / "model.onnx")
        >>> inputs = np.ones((2, 3), np.float32)
        >>> write_replay(folder / "replay.npz", [inputs], 2 * inputs)
        >>> names = ("model.onnx", "replay.npz")
        >>> fidelity = Fidelity(sqnr_db=200.0, agreement=1.0, n=2)
        >>> int8 = Variant("int8", 0, 0, file="model.onnx", fidelity=fidelity)
        >>> card = Card("demo", (int8,), {}, files={name: sha256(folder / name) for name in names})
        >>> path = write_card(folder, card)

        Load it and run a batch:

        >>> model = load(folder)
        >>> model(np.array([[1, 2, 3]], np.float32))
        array([[2., 4., 6.]], dtype=float32)
        >>> model.input_shape, model.card.run
        ((3,), 'demo')
        >>> temporary.cleanup()
    """
    folder = as_path(path, ArtifactError)
    return while_replaced(folder, lambda: _loaded(folder, threads, runtime, check, weights, batch))


def _loaded(
    folder: Path, threads: int, runtime: str, check: bool | str, weights: str, batch: int
) -> OnnxModel:
    if runtime not in (*RUNTIMES, *FORMAT_RUNTIMES, FASTEST):
        known = ", ".join((*RUNTIMES, *FORMAT_RUNTIMES, FASTEST))
        raise InvalidArgumentError(f"runtime must be one of {known}, got {runtime!r}")
    if check not in (True, False, "all"):
        raise InvalidArgumentError(f"check must be True, False or 'all', got {check!r}")
    card = read_card(folder)
    check_there(folder, card)
    stored = cache(lambda: _stored(folder, card))
    opened = cache(lambda choice: open_choice(folder, card, choice, threads))
    if runtime == FASTEST:
        found = _fastest(folder, card, weights, batch, threads, stored, opened)
    else:
        found = Choice(cast(Runtime, runtime), weights)
    model, recorded, read = opened(found)
    if check == "all":
        check_files(folder, card, but=read)
    if check:
        check_replay(model, folder / REPLAY, recorded(), stored())
    return model


def _fastest(
    folder: Path,
    card: Card,
    weights: str,
    batch: int,
    threads: int,
    stored: Callable[[], bytes],
    opened: Callable[[Choice], Opened],
) -> Choice:
    if isinstance(batch, bool) or not isinstance(batch, int) or batch < 1:
        raise InvalidArgumentError(f"batch must be a whole number from 1, got {batch!r}")
    found = choices(card, weights)
    if len(found) < 2:
        return found[0] if found else Choice("onnxruntime", weights)  # it says what is missing
    inputs, _ = read_replay(folder / REPLAY, stored())
    return fastest_choice(card, found, inputs, threads, batch, opened)


def _stored(folder: Path, card: Card) -> bytes:
    """Return the content of the stored inputs."""
    if REPLAY not in card.files:
        raise ArtifactError(
            f"{folder} has no {REPLAY}, the stored inputs to check this machine with: write the "
            "artefact again, or load it with check=False"
        )
    return checked_content(folder, card, REPLAY)
