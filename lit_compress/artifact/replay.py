"""Stored inputs with the float network's outputs, to check the results of another machine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from lit_compress.artifact.card import Fidelity
from lit_compress.artifact.fidelity import sketch_db, sqnr_db
from lit_compress.artifact.processor import lacks_vnni
from lit_compress.artifact.runtime import OnnxModel
from lit_compress.errors import ArtifactError, InvalidArgumentError
from lit_compress.files.arrays import read_arrays
from lit_compress.files.reading import read_limited, reading
from lit_compress.runtimes.onnx import RUNTIMES

REPLAY = "replay.npz"
#: Largest number of inputs that an artefact stores.
COUNT = 32
#: Largest size of all arrays together, in bytes.
LARGEST = 1 << 30
#: Bytes of the headers in the file of an input and an output, at most.
HEADERS = 800
#: Allowed loss of SQNR against the recorded value. Runtimes differ in rounding, but by less than
#: this.
TOLERANCE_DB = 3.0
#: Noise that rounding of floats makes, in dB below the outputs: float networks of 120 dB had 130 dB
#: on another processor.
ROUNDING_DB = 50.0
#: Least SQNR against the outputs of the same file in the same runtime on the machine that wrote it.
#: Other classes were seen at 31 dB and less, and equal ones from 56 dB on, see docs/processors.md.
SAME_DB = 50.0
INPUT, OUTPUT = "input_", "output"


def stored_count(row: int, model: int) -> int:
    """Return how many inputs an artefact stores: so many that they are no larger than the model.

    Args:
        row: Bytes of one input and its output, not compressed.
        model: Bytes of the model.

    Example:
        >>> stored_count(1064, 480_000), stored_count(150_568, 480_000), stored_count(5000, 480)
        (32, 3, 1)
    """
    return max(1, min(COUNT, (model - HEADERS) // max(1, row)))


def write_replay(
    path: str | Path | IO[bytes],
    inputs: Sequence[np.ndarray],
    outputs: np.ndarray | Sequence[np.ndarray],
) -> None:
    """Write inputs and the outputs of the float network to a compressed ``.npz`` file.

    Args:
        path: The file to write: its path, or the file itself.
        inputs: One array per input of the model, in the shapes and types that the model takes.
        outputs: Outputs of the float network for these inputs: one array, or one per output.

    Raises:
        ArtifactError: If an array holds Python objects, which would be pickled.

    Example:
        >>> import numpy as np
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     write_replay(Path(folder, "replay.npz"), [np.zeros((4, 3))], np.ones((4, 2)))
        ...     inputs, outputs = read_replay(Path(folder, "replay.npz"))
        >>> inputs[0].shape, outputs[0].shape
        ((4, 3), (4, 2))
    """
    arrays: dict[str, Any] = {f"{INPUT}{index}": array for index, array in enumerate(inputs)}
    if isinstance(outputs, np.ndarray):
        arrays[OUTPUT] = outputs
    else:
        arrays |= {f"{OUTPUT}_{index}": array for index, array in enumerate(outputs)}
    for name, array in arrays.items():
        if array.dtype.hasobject:
            raise ArtifactError(f"{name} of {path} holds Python objects: give arrays of numbers")
    # numpy 1.26 takes no allow_pickle here, and would store it as an array of that name.
    np.savez_compressed(path, **arrays)


def read_replay(
    path: str | Path, content: bytes | None = None
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Read the inputs and the float outputs. Pickled objects in the file are refused.

    Args:
        path: File written by :func:`write_replay`.
        content: Content of the file, if it was read already.

    Returns:
        The arrays of the inputs in order, and those of the outputs.

    Raises:
        ArtifactError: If the file is missing or damaged, or contains pickled objects.
    """
    if content is None:
        content = read_limited(Path(path), LARGEST, ArtifactError, "a file of stored inputs")
    with reading(path, ArtifactError, "write the artefact again"):
        arrays = read_arrays(content, LARGEST, COUNT)
        several = sum(name.startswith(f"{OUTPUT}_") for name in arrays)
        inputs = [f"{INPUT}{index}" for index in range(len(arrays) - max(1, several))]
        outputs = [f"{OUTPUT}_{index}" for index in range(several)] or [OUTPUT]
        if sorted(arrays) != sorted(inputs + outputs):
            raise ValueError(f"it has the arrays {', '.join(arrays)[:80]}")
        return [arrays[name] for name in inputs], [arrays[name] for name in outputs]


def check_replay(
    model: OnnxModel, path: str | Path, recorded: Fidelity, content: bytes | None = None
) -> float:
    """Run the stored inputs on this machine, and compare the SQNR with the recorded one.

    Args:
        model: The loaded model.
        path: File written by :func:`write_replay`.
        recorded: Fidelity on the machine that wrote the artefact; ``replay_db`` is compared, or
            ``sqnr_db`` if it is None.
        content: Content of the file, if it was read already.

    Returns:
        The SQNR on this machine in dB; of several outputs, the lowest.

    Raises:
        ArtifactError: If the SQNR is lower than :func:`lowest_db`, a quarter of the outputs are
            less than 50 dB from those that the same file had in the same runtime where it was
            written, or the file is damaged. The message says which outputs differ.
    """
    inputs, expected = read_replay(path, content)
    try:
        found = model.all_outputs(*inputs)
    except InvalidArgumentError as error:
        raise ArtifactError(
            f"{path} does not suit the model ({error}): write the artefact again"
        ) from error
    shapes, here = ([array.shape for array in arrays] for arrays in (expected, found))
    if shapes != here:
        raise ArtifactError(
            f"{path} has outputs of shapes {shapes}, and the model's are {here}: write the "
            "artefact again"
        )
    by_output = [sqnr_db(one, other) for one, other in zip(expected, found, strict=True)]
    worst = int(np.argmin(by_output))
    sqnr = by_output[worst]
    wanted = recorded.sqnr_db if recorded.replay_db is None else recorded.replay_db
    if sqnr < lowest_db(wanted):
        name = f" of {model.outputs[worst]}" if len(found) > 1 else ""
        raise ArtifactError(
            f"{model.runtime} computes other outputs on this machine: {sqnr:.1f} dB SQNR{name} "
            f"against the float network, where {wanted:.1f} dB were recorded. "
            f"{_difference(expected[worst], found[worst])}. {_advice(model.runtime)} "
            "(check=False loads the model without this check)"
        )
    _check_same(model, found, recorded, path)
    return sqnr


def _check_same(
    model: OnnxModel, found: Sequence[np.ndarray], recorded: Fidelity, path: str | Path
) -> None:
    """Compare the outputs with those of the same file on the machine that wrote it.

    Noise that is much smaller than that of the quantisation changes classes all the same: with
    weights of 4 bits, sums that saturate cost 0.1 to 3 dB, and 1 to 4 % of the classes.
    """
    # Cards have what ONNX Runtime computes of an ONNX file, and OpenVINO rounds otherwise.
    if not recorded.replay_sketch or model.runtime == "openvino":
        return
    try:
        same = sketch_db(recorded.replay_sketch, found)
    except ValueError as error:
        raise ArtifactError(
            f"the card has no sketch of the outputs of {path} ({error}): write the artefact again"
        ) from error
    if same < SAME_DB:
        raise ArtifactError(
            f"{model.runtime} computes other outputs on this machine than on the one that wrote "
            f"the artefact: a quarter of the {len(np.atleast_1d(found[0]))} stored inputs differ "
            f"by {same:.1f} dB SQNR or less, where {SAME_DB:.0f} dB are expected. "
            f"{_advice(model.runtime)} (check=False loads the model without this check)"
        )


def lowest_db(recorded: float) -> float:
    """Return the lowest SQNR against the float network that a machine may have, in dB.

    The noise may be twice the recorded one (:data:`TOLERANCE_DB`), plus that of the rounding of
    floats (:data:`ROUNDING_DB`).

    Args:
        recorded: SQNR on the machine that wrote the artefact, in dB.

    Example:
        >>> [round(lowest_db(recorded), 1) for recorded in (10, 35, 45, 130)]
        [7.0, 31.9, 41.4, 50.0]
    """
    noise = 10 ** ((TOLERANCE_DB - recorded) / 10) + 10 ** (-ROUNDING_DB / 10)
    return float(-10 * np.log10(noise))


def _difference(expected: np.ndarray, found: np.ndarray) -> str:
    """Return where the outputs differ most, in words."""
    expected, found = np.atleast_1d(expected), np.atleast_1d(found)
    rows = np.abs(np.subtract(expected, found, dtype=np.float64)).reshape(len(expected), -1)
    row, output = np.unravel_index(int(rows.argmax()), rows.shape)
    values = (array.reshape(len(array), -1)[row, output] for array in (expected, found))
    in_float, here = (float(value) for value in values)
    far = [sqnr_db(one, other) for one, other in zip(expected, found, strict=True)]
    return (
        f"The {len(far)} stored inputs are at {min(far):.1f} to {max(far):.1f} dB; the largest "
        f"difference is in output {output} of input {row}: {in_float:.4g} in float, {here:.4g} here"
    )


def _advice(runtime: str) -> str:
    """Return what to do, with the cause only where it is known."""
    if lacks_vnni():
        return (
            "This processor has no VNNI, so it adds products in 16 bits, which overflow: convert "
            "with weight_range: reduced, or load with another runtime"
        )
    other = next(name for name in RUNTIMES if name != runtime)
    return f"Load it with runtime={other!r}, or with another version of {runtime}"
