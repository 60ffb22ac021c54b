"""How close the outputs of a converted network are to those of the float network."""

from __future__ import annotations

import math

import numpy as np

from lit_compress.artifact.answers import CLASSES, Answers

#: Largest magnitude of :func:`sqnr_db`, reached for equal outputs.
CEILING_DB = 200.0


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
