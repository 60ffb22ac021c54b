"""How close the outputs of a converted network are to those of the float network."""

from __future__ import annotations

import hashlib
import math
from base64 import b64decode, b64encode
from collections.abc import Sequence

import numpy as np

from lit_compress.artifact.answers import CLASSES, Answers

#: Largest magnitude of :func:`sqnr_db`, reached for equal outputs.
CEILING_DB = 200.0
#: Numbers of an input in a sketch.
SKETCHED = 4
#: The share of the inputs that may differ more than a sketch tells.
OUTLIERS = 0.25


def sqnr_db(reference: np.ndarray, converted: np.ndarray) -> float:
    """Return the signal to quantisation noise ratio (SQNR) in dB.

    ``10 log10(sum(reference**2) / sum((reference - converted)**2))`` over all elements, clipped to
    [-200, 200]. Equal outputs give 200; outputs that are not finite give -200.

    Args:
        reference: Outputs of the float network, of any shape.
        converted: Outputs of the converted network, of the same shape.

    Example:
        >>> import numpy as np
        >>> reference = np.array([3.0, 4.0])
        >>> round(sqnr_db(reference, reference * 1.01), 6)
        40.0
        >>> sqnr_db(reference, reference)
        200.0
    """
    signal = float(np.square(reference, dtype=np.float64).sum())
    noise = float(np.square(np.subtract(reference, converted, dtype=np.float64)).sum())
    if not math.isfinite(noise) or not math.isfinite(signal):
        return -CEILING_DB
    if noise == 0:
        return CEILING_DB
    if signal == 0:
        return -CEILING_DB
    return float(np.clip(10 * math.log10(signal / noise), -CEILING_DB, CEILING_DB))


def median_sqnr_db(reference: np.ndarray, converted: np.ndarray) -> float | None:
    """Return the SQNR of a typical input in dB: the median signal against the median noise.

    Over all elements, one input with huge outputs hides the noise of all others.

    Args:
        reference: Outputs of the float network; the first axis is the batch.
        converted: Outputs of the converted network, of the same shape.

    Returns:
        The ratio, clipped as :func:`sqnr_db` is; None if the outputs of most inputs are zero.

    Example:
        >>> import numpy as np
        >>> reference = np.array([[1.0], [1.0], [1e6]])
        >>> converted = np.array([[0.0], [0.0], [1e6]])
        >>> round(sqnr_db(reference, converted)), median_sqnr_db(reference, converted)
        (117, 0.0)
    """
    signal, noise = (
        float(np.median(np.square(values.reshape(len(values), -1), dtype=np.float64).sum(1)))
        for values in (reference, np.subtract(reference, converted, dtype=np.float64))
    )
    if signal == 0 or not math.isfinite(signal):
        return None
    return sqnr_db(np.sqrt([signal]), np.sqrt([signal]) - np.sqrt([noise]))


def agreement(reference: np.ndarray, converted: np.ndarray, answers: Answers = CLASSES) -> float:
    """Return the share of equal answers, in [0, 1].

    Args:
        reference: Outputs of the float network; the first axis is the batch.
        converted: Outputs of the converted network, of the same shape.
        answers: How to read the answers. Default: the largest output along the second axis.

    Example:
        >>> import numpy as np
        >>> agreement(np.array([[1, 2], [4, 3]]), np.array([[1, 3], [3, 4]]))
        0.5
    """
    return float(np.mean(answers.of(reference) == answers.of(converted)))


def sketch(outputs: Sequence[np.ndarray]) -> tuple[str, ...]:
    """Return a few numbers for each input, from which the distance of other outputs is estimated.

    Each number is the sum of all values of an output with random signs. The square of the
    difference of two such sums is, on average, that of the outputs.

    Args:
        outputs: The outputs of a file; the first axis is that of the inputs.

    Returns:
        For each output, its numbers as base64 of 32-bit floats, 4 for each input.

    Example:
        >>> import numpy as np
        >>> sketch([np.eye(2)])
        ('AACAPwAAgD8AAIA/AACAPwAAgD8AAIC/AACAvwAAgL8=',)
    """
    return tuple(b64encode(_sums(_rows(one)).astype("<f4").tobytes()).decode() for one in outputs)


def sketch_db(sketches: Sequence[str], outputs: Sequence[np.ndarray]) -> float:
    """Return an estimate of the SQNR of outputs against those that were sketched, in dB.

    Where a sum of floats lies between two steps of int8, processors may round it to different ones.
    So the quarter of the inputs that differs most does not count.

    Args:
        sketches: What :func:`sketch` returned.
        outputs: The outputs to compare.

    Returns:
        The SQNR that three quarters of the inputs reach; of several outputs, the lowest.

    Raises:
        ValueError: If the sketches are those of other shapes.

    Example:
        >>> import numpy as np
        >>> outputs = np.random.default_rng(0).normal(size=(32, 10))
        >>> [round(sketch_db(sketch([outputs]), [outputs * scale])) for scale in (1.01, 1.1)]
        [38, 19]
    """
    if len(sketches) != len(outputs):
        raise ValueError(f"{len(sketches)} sketches of {len(outputs)} outputs")
    return min(map(_sketch_db, sketches, outputs))


def _sketch_db(text: str, output: np.ndarray) -> float:
    rows = _rows(output)
    there = np.frombuffer(b64decode(text, validate=True), "<f4").astype(np.float64)
    here = _sums(rows)
    if there.size != here.size:
        raise ValueError(f"{there.size} numbers in place of {here.size}")
    noise = np.square(here - there.reshape(here.shape)).mean(1)
    signal = np.square(rows).sum() / max(1, len(rows))
    # sqnr_db of each input, with the signal of a typical one
    levels = [sqnr_db(np.sqrt([signal]), np.sqrt([signal]) - np.sqrt([one])) for one in noise]
    return float(np.quantile(levels, OUTLIERS, method="lower")) if levels else CEILING_DB


def _rows(output: np.ndarray) -> np.ndarray:
    array = np.atleast_1d(output).astype(np.float64)
    return array.reshape(len(array), math.prod(array.shape[1:]))


def _sums(rows: np.ndarray) -> np.ndarray:
    """Return the sums with signs that are the same on each machine and in each version."""
    width = rows.shape[1]
    stream = hashlib.shake_128(b"lit_compress").digest((width * SKETCHED + 7) // 8)
    bits = np.unpackbits(np.frombuffer(stream, np.uint8), count=width * SKETCHED)
    signs = 2.0 * bits.reshape(width, SKETCHED) - 1
    # By numpy's own loops: a product of matrices would start the threads of its BLAS library.
    sums: np.ndarray = np.einsum("nw,ws->ns", rows, signs)
    return sums
