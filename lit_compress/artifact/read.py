"""Read an artefact: its validated card, and its model, ready to run."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from time import sleep
from typing import Literal, TypeVar, cast

from lit_compress.artifact.card import Card, Fidelity
from lit_compress.artifact.fastest import Choice, choices, fastest_choice, format_files
from lit_compress.artifact.replay import REPLAY, check_replay, read_replay
from lit_compress.artifact.runtime import OnnxModel
from lit_compress.artifact.write import CARD, sha256
from lit_compress.errors import ArtifactError, CheckpointError, InvalidArgumentError
from lit_compress.files.reading import as_path, read_limited, reading, shown
from lit_compress.runtimes.format_file import FormatFile
from lit_compress.runtimes.interface import Runtime
from lit_compress.runtimes.onnx import LARGEST, RUNTIMES
from lit_compress.runtimes.open_format import RUNTIMES as FORMAT_RUNTIMES
from lit_compress.runtimes.open_format import open_format

T = TypeVar("T")

MODEL = "model.onnx"
#: The float network, if the artefact has it.
FP32 = "model-fp32.onnx"
#: End of the name of a packed network, which an artefact has in the place of an ONNX file.
PACKED = ".packed"
#: The runtime that means the fastest one.
FASTEST = "fastest"
#: Largest size of a card in bytes; a larger file is not parsed.
CARD_LIMIT = 16 << 20
#: How often an artefact that was replaced is read again, and the pause before it in seconds.
TRIES, PAUSE = 5, 0.05


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


def load(
    path: str | Path,
    threads: int = 1,
    runtime: Literal["onnxruntime", "openvino", "executorch", "litert", "fastest"] = "onnxruntime",
    check: bool = True,
    weights: Literal["int8", "fp32"] = "int8",
    batch: int = 1,
) -> OnnxModel:
    """Load the int8 model of an artefact. Neither torch nor lightning is imported.

    The card and the SHA-256 of every file are checked first. Loading never executes code from the
    folder.

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
            OpenVINO, less than 50 dB from those of the same file where it was written.
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
        InvalidArgumentError: If ``threads`` or ``runtime`` is invalid.

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
    folder: Path, threads: int, runtime: str, check: bool, weights: str, batch: int
) -> OnnxModel:
    if runtime not in (*RUNTIMES, *FORMAT_RUNTIMES, FASTEST):
        known = ", ".join((*RUNTIMES, *FORMAT_RUNTIMES, FASTEST))
        raise InvalidArgumentError(f"runtime must be one of {known}, got {runtime!r}")
    card = read_card(folder)
    replay = _content(folder, card, REPLAY) if REPLAY in card.files else None
    if runtime == FASTEST:
        found = _fastest(folder, card, threads, weights, batch, replay)
    else:
        found = Choice(cast(Runtime, runtime), weights)
    model, recorded, read = open_choice(folder, card, found, threads)
    check_files(folder, card, but=(*read, REPLAY))
    if check:
        _check_stored(folder, replay)
        check_replay(model, folder / REPLAY, recorded(), replay)
    return model


def _fastest(
    folder: Path, card: Card, threads: int, weights: str, batch: int, replay: bytes | None
) -> Choice:
    if isinstance(batch, bool) or not isinstance(batch, int) or batch < 1:
        raise InvalidArgumentError(f"batch must be a whole number from 1, got {batch!r}")
    found = choices(card, weights)
    if len(found) < 2:
        return found[0] if found else Choice("onnxruntime", weights)  # it says what is missing
    _check_stored(folder, replay)
    inputs, _ = read_replay(folder / REPLAY, replay)
    return fastest_choice(
        card, found, inputs, threads, batch, lambda one: open_choice(folder, card, one, threads)
    )


def open_choice(
    folder: Path, card: Card, choice: Choice, threads: int
) -> tuple[OnnxModel, Callable[[], Fidelity], tuple[str, ...]]:
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
        ArtifactError: As :func:`load`.
        InvalidArgumentError: As :func:`load`.
    """
    if choice.runtime in FORMAT_RUNTIMES:
        return _of_format(folder, card, choice.runtime, threads)
    name = model_file(folder, card, choice.weights)
    content = _content(folder, card, name)
    model = OnnxModel(folder / name, threads, card, choice.runtime, content)
    return model, lambda: _recorded_fidelity(card, name), (name,)


def _of_format(
    folder: Path, card: Card, runtime: Runtime, threads: int
) -> tuple[OnnxModel, Callable[[], Fidelity], tuple[str, ...]]:
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
        (found, tuple(_content(folder, card, name) for name in found.files)) for found in files
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


def while_replaced(path: Path, read: Callable[[], T]) -> T:
    """Read an artefact, and once more if a writer replaced it meanwhile.

    Args:
        path: The artefact folder.
        read: Reads it.

    Raises:
        ArtifactError: If the artefact is damaged, or is replaced all the time.
    """
    for _ in range(TRIES):
        before = _identity(path)
        try:
            return read()
        except (ArtifactError, CheckpointError):
            sleep(PAUSE)
            if _identity(path) == before:
                raise
    return read()


def _identity(path: Path) -> tuple[int, int, int] | None:
    """Return what tells an artefact from the next one at its path; None if none is there."""
    try:
        found = os.stat(path / CARD)
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def packed_name(name: str) -> str:
    """Return the name of the packed file of an ONNX file.

    Example:
        >>> packed_name("model.onnx")
        'model.packed'
    """
    return Path(name).with_suffix(PACKED).name


def model_file(path: str | Path, card: Card, weights: str = "int8") -> str:
    """Return the name of the file of a network in an artefact, which may be packed.

    Args:
        path: The artefact folder, for messages.
        card: Its card.
        weights: ``int8`` or ``fp32``.

    Raises:
        ArtifactError: If the artefact has no such file.
        InvalidArgumentError: If ``weights`` is something else.
    """
    names = {"int8": MODEL, "fp32": FP32}
    if weights not in names:
        raise InvalidArgumentError(f"weights must be 'int8' or 'fp32', got {weights!r}")
    if packed_name(names[weights]) in card.files and names[weights] not in card.files:
        return packed_name(names[weights])
    if names[weights] not in card.files:
        wanted = "quantisation writes one, add the PostTrainingQuantization callback"
        if weights == "fp32":
            wanted = "quantisation and a report writes one, add the CompressionReport callback"
        raise ArtifactError(f"{path} has no {names[weights]}: only a run with {wanted}")
    return names[weights]


def check_files(folder: str | Path, card: Card, but: tuple[str, ...] = ()) -> None:
    """Check the files of an artefact against the SHA-256 values on its card.

    Args:
        folder: The artefact folder.
        card: Its card.
        but: Names of files that are not checked.

    Raises:
        ArtifactError: If a file is missing or has another SHA-256.
    """
    for name, digest in card.files.items():
        if name not in but:
            _check_there(Path(folder), name)
            _check_digest(Path(folder) / name, sha256(Path(folder) / name), digest)


def _content(folder: Path, card: Card, name: str) -> bytes:
    """Return the content of a file, whose SHA-256 is that on the card."""
    _check_there(folder, name)
    content = read_limited(folder / name, LARGEST, ArtifactError, "what its name says")
    _check_digest(folder / name, hashlib.sha256(content).hexdigest(), card.files[name])
    return content


def _check_there(folder: Path, name: str) -> None:
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


def _check_stored(folder: Path, replay: bytes | None) -> None:
    if replay is None:
        raise ArtifactError(
            f"{folder} has no {REPLAY}, the stored inputs to check this machine with: write the "
            "artefact again, or load it with check=False"
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
